-- name: conflict
select c.*, s.study_key from conflicts c join studies s on s.study_instance_uid = c.study_instance_uid
where c.id = :id and c.accepted_at is null

-- name: open_ones
select c.*, s.study_key from conflicts c join studies s on s.study_instance_uid = c.study_instance_uid
where c.accepted_at is null
order by c.id

-- name: content
-- One content of a SOP instance.
select * from instances where sop_instance_uid = :sop_instance_uid and content_hash = :content_hash

-- name: of_patient
-- What came of a study under one Patient ID.
select count(*) as images, min(received_at) as first_at, max(received_at) as last_at,
  json_group_array(distinct calling_ae) as callers, json_group_array(distinct facts ->> '$.patient_name') as names
from instances
where study_instance_uid = :study_instance_uid and is_ours = 0 and facts ->> '$.patient_id' = :patient_id

-- name: set_aside
update instances set is_current = 0 where sop_instance_uid = :sop_instance_uid and is_current = 1
returning study_instance_uid

-- name: make_current
update instances set is_current = 1 where sop_instance_uid = :sop_instance_uid and content_hash = :content_hash
returning *

-- name: note_choice
insert into chosen_contents (conflict_id, study_instance_uid, content_hash, chosen_at)
values (:id, :study_instance_uid, :content_hash, :chosen_at)

-- name: chosen_contents
-- What an administrator chose for a study, in the order of the choices; a later one of an instance is one more.
select content_hash from chosen_contents where study_instance_uid = :study_instance_uid order by chosen_at, conflict_id
