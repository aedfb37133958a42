-- name: newest
select max(last_received_at) as newest from studies

-- name: received_since
select id, sop_instance_uid, study_instance_uid, series_instance_uid, path, content_hash
from instances join studies using (study_instance_uid)
where last_received_at >= :since and received_at >= :since

-- name: forget_instance
delete from instances where id = :id

-- name: another_is_current
update instances set is_current = 1
where id = (select min(id) from instances where sop_instance_uid = :sop_instance_uid)
  and not exists (select 1 from instances where sop_instance_uid = :sop_instance_uid and is_current = 1)

-- name: reopen_series
update series set state = 'open', evidence = null
where study_instance_uid = :study_instance_uid and series_instance_uid = :series_instance_uid and state <> 'kept'

-- name: reopen_study
update studies set state = 'open', evidence = null where study_instance_uid = :study_instance_uid and state <> 'kept'
