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

-- name: what_is_left
-- What a series still holds that somebody sent.
select facts from instances
where study_instance_uid = :study_instance_uid and series_instance_uid = :series_instance_uid
  and is_current = 1 and is_ours = 0

-- name: reopen_series
update series set state = 'open', evidence = null
where study_instance_uid = :study_instance_uid and series_instance_uid = :series_instance_uid and state <> 'kept'

-- name: keep_series
-- Nothing is left of it that could become complete: it is waited for once something comes again.
update series set state = 'kept', evidence = null
where study_instance_uid = :study_instance_uid and series_instance_uid = :series_instance_uid

-- name: reopen_study
-- Once its series are told: kept where no image is left of any that arrives or has arrived (rules of retention may have
-- taken others), for nothing would ever end its arrival.
update studies set evidence = null, state = iif(
  exists (
    select 1 from series s join instances i using (study_instance_uid, series_instance_uid)
    where study_instance_uid = :study_instance_uid and s.state <> 'kept' and i.is_current = 1 and i.is_ours = 0
  ), 'open', 'kept'
)
where study_instance_uid = :study_instance_uid and state <> 'kept'
