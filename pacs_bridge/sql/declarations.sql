-- name: keep
insert into declared_lists (
  study_instance_uid, series_instance_uid, digest, sop_instance_uids, whole, awaited, declared_at
) values (
  :study_instance_uid, :series_instance_uid, :digest, :sop_instance_uids, :whole, :awaited, :declared_at
) on conflict do nothing

-- name: forget
delete from declared_lists where declared_at < :before

-- name: lists_of
select * from declared_lists where study_instance_uid = :study_instance_uid order by declared_at, series_instance_uid

-- name: in_archive
select sop_instance_uid from instances
where study_instance_uid = :study_instance_uid and is_current = 1
  and sop_instance_uid in (select value from json_each(:sop_instance_uids))
