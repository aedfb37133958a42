-- name: add
insert into procedure_steps (sop_instance_uid, status, said, calling_ae, created_at, changed_at)
values (:sop_instance_uid, :status, :said, :calling_ae, :at, :at)
on conflict do nothing
returning sop_instance_uid

-- name: step
select said, calling_ae from procedure_steps where sop_instance_uid = :sop_instance_uid

-- name: change
update procedure_steps set status = :status, said = :said, changed_at = :at where sop_instance_uid = :sop_instance_uid

-- name: forget
delete from procedure_steps where changed_at < :before
