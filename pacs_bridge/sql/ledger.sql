-- name: keep_series_result
insert or replace into series_results (study_instance_uid, series_instance_uid, digest, provenance_key, result)
values (:study_instance_uid, :series_instance_uid, :digest, :provenance_key, :result)

-- name: series_result
select result from series_results
where study_instance_uid = :study_instance_uid and series_instance_uid = :series_instance_uid
  and digest = :digest and provenance_key = :provenance_key

-- name: add_report
insert into reports (
  study_instance_uid, version, digest, provenance_key, status, priority, report, timings_s, committed_at
) values (
  :study_instance_uid, :version, :digest, :provenance_key, :status, :priority, :report, :timings_s, :committed_at
)

-- name: add_remarks
update reports set remarks = :remarks, timings_s = json_patch(timings_s, :timings_s)
where study_instance_uid = :study_instance_uid and version = :version

-- name: latest_report
select * from reports where study_instance_uid = :study_instance_uid order by version desc limit 1

-- name: report
select * from reports where study_instance_uid = :study_instance_uid and version = :version

-- name: latest_reports
select r.* from reports r
join (select study_instance_uid, max(version) as version from reports group by study_instance_uid) last
  on last.study_instance_uid = r.study_instance_uid and last.version = r.version

-- name: add_object
insert into result_objects (
  sop_instance_uid, study_instance_uid, version, kind, object_index, sop_class_uid, series_instance_uid, path, sha256,
  label
) values (
  :sop_instance_uid, :study_instance_uid, :version, :kind, :object_index, :sop_class_uid, :series_instance_uid, :path,
  :sha256, :label
)

-- name: objects_of
select * from result_objects
where study_instance_uid = :study_instance_uid and version = :version
order by rowid

-- name: is_result
select 1 from result_objects where sop_instance_uid = :sop_instance_uid

-- name: object_paths
select path from result_objects
