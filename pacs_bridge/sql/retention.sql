-- name: page
-- Studies that hold images, the oldest first, after a place in that order.
select s.study_instance_uid, s.study_key, s.patient_id, s.state, s.last_received_at,
  (select count(*) from instances i where i.study_instance_uid = s.study_instance_uid) as images,
  (select sum(i.size_bytes) from instances i where i.study_instance_uid = s.study_instance_uid) as size_bytes
from studies s
where (s.last_received_at, s.study_instance_uid) > (:after_at, :after_study)
  and exists (select 1 from instances i where i.study_instance_uid = s.study_instance_uid)
order by s.last_received_at, s.study_instance_uid
limit :limit

-- name: one
-- As a page, of one study.
select s.study_instance_uid, s.study_key, s.patient_id, s.state, s.last_received_at,
  (select count(*) from instances i where i.study_instance_uid = s.study_instance_uid) as images,
  (select coalesce(sum(i.size_bytes), 0) from instances i where i.study_instance_uid = s.study_instance_uid) as size_bytes
from studies s
where s.study_instance_uid = :study_instance_uid

-- name: studies_with_jobs
-- Whose jobs wait, run, are held or were given up. The statuses are those of the index jobs_unfinished.
select distinct payload ->> '$.study_instance_uid' as study_instance_uid from jobs
where status in ('ready', 'running', 'held', 'buried') and payload ->> '$.study_instance_uid' is not null

-- name: unforwarded
-- Images that a destination has not taken; what it refused was not delivered either. As the index forwards_open has it.
select count(*) as images from forwards where study_instance_uid = :study_instance_uid and state <> 'sent'

-- name: has_report
select 1 from reports where study_instance_uid = :study_instance_uid limit 1

-- name: classes_of
select sop_class_uid, count(*) as instances from instances
where study_instance_uid = :study_instance_uid group by sop_class_uid order by sop_class_uid

-- name: mark_files
insert into removed_files (path, sop_instance_uid)
select path, sop_instance_uid from instances where study_instance_uid = :study_instance_uid
on conflict do nothing

-- name: remove_instances
delete from instances where study_instance_uid = :study_instance_uid

-- name: note_removal
insert into removals (study_instance_uid, removed_at, images, size_bytes, rule)
values (:study_instance_uid, :removed_at, :images, :size_bytes, :rule)

-- name: marked_files
select path, sop_instance_uid from removed_files order by path limit :limit

-- name: is_indexed
select 1 from instances where sop_instance_uid = :sop_instance_uid and path = :path

-- name: unmark_file
delete from removed_files where path = :path

-- name: removed_at
-- When a study's images were last removed, of one study or of all.
select study_instance_uid, max(removed_at) as removed_at, sum(images) as images from removals
where :study_instance_uid is null or study_instance_uid = :study_instance_uid
group by study_instance_uid
