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

-- name: latest_verdicts
select r.study_instance_uid, r.version, r.status, r.priority, r.remarks, r.committed_at from reports r
join (select study_instance_uid, max(version) as version from reports group by study_instance_uid) last
  on last.study_instance_uid = r.study_instance_uid and last.version = r.version

-- name: failed_studies
-- Those whose newest triage job is buried; a job that says so to the radiologist (payload.failed) is none.
select buried.payload ->> '$.study_instance_uid' as study_instance_uid from jobs as buried
where buried.kind = 'triage' and buried.status = 'buried' and buried.payload ->> '$.failed' is null
  and not exists (
    select 1 from jobs as newer
    where newer.kind = 'triage' and newer.created_at > buried.created_at and newer.payload ->> '$.failed' is null
      and newer.payload ->> '$.study_instance_uid' = buried.payload ->> '$.study_instance_uid'
  )

-- name: jobs_of_study
select * from jobs where payload ->> '$.study_instance_uid' = :study_instance_uid order by created_at desc, key

-- name: buried_jobs
-- What can be tried again: of one study or of all. A job that only says that another one failed follows that one.
select key from jobs
where status = 'buried' and payload ->> '$.failed' is null
  and (:study_instance_uid is null or payload ->> '$.study_instance_uid' = :study_instance_uid)
order by created_at, key

-- name: note_sent
insert into sent_objects (sop_instance_uid, destination, sent_at) values (?, ?, ?)
on conflict do nothing

-- name: superseded
select o.* from result_objects as o join sent_objects as s on s.sop_instance_uid = o.sop_instance_uid
where o.study_instance_uid = :study_instance_uid and o.version < :version and o.kind <> 'rejection'
  and s.destination = :destination and s.rejected_by is null
order by o.version, o.rowid

-- name: note_rejected
update sent_objects set rejected_by = ? where sop_instance_uid = ? and destination = ?
