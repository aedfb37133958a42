-- name: note
-- Not what this archive made itself, come back; what another's ctriage made is an image like any other.
insert into forwards (destination, instance_id, study_instance_uid, state, changed_at)
select :destination, id, study_instance_uid, 'pending', :at from instances
where sop_instance_uid = :sop_instance_uid and is_current = 1
  and not exists (select 1 from result_objects where sop_instance_uid = :sop_instance_uid)
on conflict do nothing

-- name: verdicts_of
select findings, priority from forward_verdicts where study_instance_uid = :study_instance_uid

-- name: add_verdict
insert into forward_verdicts (study_instance_uid, findings, priority)
values (:study_instance_uid, :findings, :priority)
on conflict do nothing

-- name: kinds_of_instances
-- What rules ask about the instances of a study, each combination once.
select distinct calling_ae, facts ->> '$.modality' as modality,
  facts ->> '$.study_description' as study_description, facts ->> '$.series_description' as series_description
from instances where study_instance_uid = :study_instance_uid and is_current = 1

-- name: note_all
insert into forwards (destination, instance_id, study_instance_uid, state, changed_at)
select :destination, id, study_instance_uid, 'pending', :at from instances
where study_instance_uid = :study_instance_uid and is_current = 1
  and not exists (select 1 from result_objects as made where made.sop_instance_uid = instances.sop_instance_uid)
  and calling_ae = :calling_ae and facts ->> '$.modality' = :modality
  and facts ->> '$.study_description' = :study_description
  and facts ->> '$.series_description' = :series_description
order by id
on conflict do nothing

-- name: unbatched
select destination, study_instance_uid, count(*) as instances, min(changed_at) as first_at, max(changed_at) as last_at
from forwards where state = 'pending' and batch is null
group by destination, study_instance_uid
order by first_at

-- name: unbatched_of
select instance_id, size_bytes from forwards join instances on instances.id = forwards.instance_id
where destination = :destination and forwards.study_instance_uid = :study_instance_uid
  and forwards.state = 'pending' and batch is null
order by instance_id

-- name: add_batch
insert into forward_batches (destination, study_instance_uid) values (:destination, :study_instance_uid)
returning number

-- name: assign
update forwards set batch = :batch where destination = :destination and instance_id = :instance_id

-- name: batch
select instance_id, path, size_bytes, sop_class_uid, transfer_syntax, is_current
from forwards join instances on instances.id = forwards.instance_id
where batch = :batch and forwards.state = 'pending'
order by instance_id

-- name: settle
update forwards set state = :state, reason = :reason, changed_at = :at
where destination = :destination and instance_id = :instance_id and batch = :batch and state = 'pending'

-- name: withdraw
delete from forwards where destination = :destination and instance_id = :instance_id and state = 'pending'

-- name: bring_back
-- What was refused, of one study or of all; and what waits for a job that somebody has ended.
update forwards set state = 'pending', batch = null, reason = null, changed_at = :at
where destination = :destination
  and (:study_instance_uid is null or study_instance_uid = :study_instance_uid)
  and (state = 'refused' or (state = 'pending' and batch is not null and not exists (
    select 1 from jobs
    where key = 'forward:' || destination || ':' || batch and status in ('ready', 'running', 'held')
  )))
returning study_instance_uid

-- name: give_up
delete from forwards where destination = :destination and state <> 'sent' returning instance_id

-- name: jobs_to
select key from jobs
where kind in (select value from json_each(:kinds)) and status in ('ready', 'held', 'buried')
order by key

-- name: sent_studies
select distinct study_instance_uid from forwards where destination = :destination and state = 'sent'
order by study_instance_uid

-- name: sent_to
-- What a destination has said it took of a study.
select i.sop_instance_uid, i.series_instance_uid, f.instance_id, s.study_key
from forwards as f
join instances as i on i.id = f.instance_id
join studies as s on s.study_instance_uid = f.study_instance_uid
where f.destination = :destination and f.state = 'sent' and f.study_instance_uid = :study_instance_uid
order by i.series_instance_uid, f.instance_id

-- name: send_again
update forwards set state = 'pending', batch = null, reason = null, changed_at = :at
where destination = :destination and instance_id = :instance_id and state = 'sent'

-- name: unsettled_studies
select distinct study_instance_uid from forwards where state <> 'sent'

-- name: standing
-- How far each of these studies is with each destination.
select study_instance_uid, destination,
  sum(state = 'pending') as pending, sum(state = 'sent') as sent, sum(state = 'refused') as refused
from forwards where study_instance_uid in (select value from json_each(:studies))
group by study_instance_uid, destination

-- name: unsettled
-- Since when, and why; of several reasons one is enough.
select study_instance_uid, destination, min(changed_at) as since, max(reason) as reason
from forwards where state <> 'sent' and study_instance_uid in (select value from json_each(:studies))
group by study_instance_uid, destination

-- name: waiting_jobs
-- The jobs of what is pending, the next one first.
select f.study_instance_uid, f.destination, j.status, j.attempt, j.next_at, j.reason
from (
  select distinct study_instance_uid, destination, batch from forwards
  where state = 'pending' and batch is not null
    and study_instance_uid in (select value from json_each(:studies))
) as f
join jobs as j on j.key = 'forward:' || f.destination || ':' || f.batch
order by j.next_at desc

-- name: other_jobs
-- All jobs but those that pass images on, which are told by study and destination.
select * from jobs
where status in (select value from json_each(:statuses)) and kind not like 'forward:%'
order by created_at desc, key limit :limit

-- name: contacts_lost
select * from contact_lost order by destination

-- name: lose_contact
insert into contact_lost (destination, since, failures, next_at, reason)
values (:destination, :at, :failures, :next_at, :reason)
on conflict (destination) do update set
  failures = excluded.failures, next_at = excluded.next_at, reason = excluded.reason

-- name: regain_contact
delete from contact_lost where destination = :destination

-- name: forget_contacts
delete from contact_lost
