-- name: contents_of
select content_hash, is_current from instances where sop_instance_uid = :sop_instance_uid

-- name: study
select * from studies where study_instance_uid = :study_instance_uid

-- name: study_by_key
select * from studies where study_key = :study_key

-- name: studies
select * from studies order by last_received_at desc, study_instance_uid limit :limit

-- name: touch_study
insert into studies (
  study_instance_uid, study_key, patient_id, patient_name, accession_number, description,
  first_received_at, last_received_at
) values (
  :study_instance_uid, :study_key, :patient_id, :patient_name, :accession_number, :description,
  :received_at, :received_at
) on conflict (study_instance_uid) do update set
  patient_id = coalesce(nullif(patient_id, ''), excluded.patient_id),
  patient_name = coalesce(nullif(patient_name, ''), excluded.patient_name),
  accession_number = coalesce(nullif(accession_number, ''), excluded.accession_number),
  description = coalesce(nullif(description, ''), excluded.description),
  last_received_at = max(last_received_at, excluded.last_received_at)
returning patient_id

-- name: touch_series
insert into series (series_instance_uid, study_instance_uid, modality, series_number, description)
values (:series_instance_uid, :study_instance_uid, :modality, :series_number, :description)
on conflict do nothing

-- name: add_instance
insert into instances (
  sop_instance_uid, content_hash, study_instance_uid, series_instance_uid, sop_class_uid, transfer_syntax, path, size_bytes,
  is_current, is_ours, calling_ae, received_at, facts, header
) values (
  :sop_instance_uid, :content_hash, :study_instance_uid, :series_instance_uid, :sop_class_uid, :transfer_syntax, :path,
  :size_bytes, :is_current, :is_ours, :calling_ae, :received_at, :facts, :header
)

-- name: add_conflict
insert into conflicts (kind, study_instance_uid, sop_instance_uid, kept, other, found_at)
values (:kind, :study_instance_uid, :sop_instance_uid, :kept, :other, :found_at)
on conflict do nothing
returning id

-- name: open_conflicts
select * from conflicts
where accepted_at is null and (:study_instance_uid is null or study_instance_uid = :study_instance_uid)
order by id

-- name: accept_conflict
update conflicts set accepted_at = :accepted_at where id = :id and accepted_at is null returning *

-- name: series_of
select * from series where study_instance_uid = :study_instance_uid
order by series_number is null, series_number, series_instance_uid

-- name: instances_of
select * from instances
where study_instance_uid = :study_instance_uid and series_instance_uid = :series_instance_uid and is_current = 1
order by id

-- name: set_series_state
update series set state = :state, evidence = :evidence
where study_instance_uid = :study_instance_uid and series_instance_uid = :series_instance_uid

-- name: set_study_state
update studies set state = :state, evidence = :evidence where study_instance_uid = :study_instance_uid

-- name: unfinished_studies
select study_instance_uid from studies where state = 'open' order by first_received_at

-- name: extent_of
select count(*) as images,
  (select calling_ae from instances where study_instance_uid = :study_instance_uid order by id limit 1) as calling_ae,
  (
    select facts ->> '$.body_part' from instances
    where study_instance_uid = :study_instance_uid order by id limit 1
  ) as body_part,
  (select count(*) from removals where study_instance_uid = :study_instance_uid) as removals
from instances where study_instance_uid = :study_instance_uid and is_current = 1
