-- name: transactions_of
-- Of one title at one address: another scanner may bear the same title.
select id, digest, state from commitment_requests
where caller = :caller and address = :address and transaction_uid = :transaction_uid order by id

-- name: add_request
insert into commitment_requests (caller, address, association, transaction_uid, digest, mode, asked_at)
values (:caller, :address, :association, :transaction_uid, :digest, :mode, :asked_at)
returning id

-- name: add_reference
insert into commitment_references (request_id, place, sop_class_uid, sop_instance_uid)
values (:request_id, :place, :sop_class_uid, :sop_instance_uid)

-- name: ask_again
-- The same over another association: the report goes there. What was reported is decided about anew.
update commitment_requests set association = :association, times = times + 1,
  openings = openings + (state = 'reported'), asked_at = iif(state = 'reported', :asked_at, asked_at),
  state = iif(state = 'reported', 'open', state)
where id = :id

-- name: forget_references
delete from commitment_references where request_id = :id

-- name: forget_said_of_request
delete from peer_commitment_references
where commitment_id in (select id from peer_commitments where request_id = :id)

-- name: forget_said
delete from peer_commitment_references where commitment_id = (select id from peer_commitments where job = :job)

-- name: request
select * from commitment_requests where id = :id

-- name: references_of
select * from commitment_references where request_id = :id order by place

-- name: held
-- What the index holds of the instances named in a list of UIDs.
select i.sop_instance_uid, i.sop_class_uid, i.path, i.content_hash, i.study_instance_uid, i.series_instance_uid,
  s.state = 'open' and s.modality = 'CT' and i.is_ours = 0 as arriving
from instances i
join series s on s.study_instance_uid = i.study_instance_uid and s.series_instance_uid = i.series_instance_uid
where i.is_current = 1 and i.sop_instance_uid in (select value from json_each(:uids))

-- name: in_doubt
select path from files_in_doubt

-- name: doubt
insert into files_in_doubt (path, found_at) values (:path, :at) on conflict do nothing

-- name: trust
delete from files_in_doubt where path = :path

-- name: decide
update commitment_references set outcome = :outcome
where request_id = :id and place = :place

-- name: promise
insert into committed_instances (sop_instance_uid, request_id, committed_at)
values (:sop_instance_uid, :id, :at) on conflict do nothing

-- name: set_request_state
update commitment_requests set state = :state where id = :id

-- name: unreported_of
select id from commitment_requests
where caller = :caller and address = :address and state = 'decided' order by id

-- name: is_promised
-- Retention asks: does a study hold what was promised to a sender, or what is being asked for?
select 1 from instances i
where i.study_instance_uid = :study_instance_uid and (
  exists (select 1 from committed_instances c where c.sop_instance_uid = i.sop_instance_uid)
  or exists (
    select 1 from commitment_references f join commitment_requests r on r.id = f.request_id
    where f.sop_instance_uid = i.sop_instance_uid and r.state = 'open'
  )
)
limit 1

-- name: add_peer_commitment
insert into peer_commitments (job, destination, request_id, decided_by)
values (:job, :destination, :request_id, :decided_by)
on conflict (job) do nothing

-- name: peer_commitment
select id from peer_commitments where job = :job

-- name: give_up
update peer_commitments set given_up = 1 where job = :job

-- name: add_peer_reference
insert into peer_commitment_references (commitment_id, sop_class_uid, sop_instance_uid)
values (:id, :sop_class_uid, :sop_instance_uid) on conflict do nothing

-- name: peer_references
select * from peer_commitment_references where commitment_id = :id order by sop_instance_uid

-- name: said_of_request
select p.destination, p.given_up, f.sop_instance_uid, f.outcome, f.failures
from peer_commitments p join peer_commitment_references f on f.commitment_id = p.id
where p.request_id = :request_id order by p.id

-- name: add_transaction
insert into peer_transactions (transaction_uid, commitment_id, asked_at) values (:transaction_uid, :id, :asked_at)

-- name: end_transaction
update peer_transactions set ended = 1 where transaction_uid = :transaction_uid

-- name: waiting_since
select max(asked_at) as asked_at from peer_transactions where commitment_id = :id and ended = 0

-- name: transaction
select p.id, p.job, p.destination, p.request_id, p.decided_by from peer_transactions t join peer_commitments p on p.id = t.commitment_id
where t.transaction_uid = :transaction_uid

-- name: peer_said
update peer_commitment_references
set outcome = iif(outcome = 0, 0, :outcome), failures = failures + (:outcome <> 0)
where commitment_id = :id and sop_instance_uid = :sop_instance_uid

-- name: still_to_forward
-- Which of the instances named are on their way to a destination.
select i.sop_instance_uid from forwards f join instances i on i.id = f.instance_id
where f.destination = :destination and f.state = 'pending'
  and i.sop_instance_uid in (select value from json_each(:uids))

-- name: passed_on_to
select i.sop_instance_uid, f.destination from forwards f join instances i on i.id = f.instance_id
where i.is_current = 1 and i.sop_instance_uid in (select value from json_each(:uids))

-- name: ended_commitments
-- Asked of peers long ago, and nobody waits for what they say: neither a job nor a caller.
select distinct t.commitment_id as id from peer_transactions t
join peer_commitments p on p.id = t.commitment_id
left join commitment_requests r on r.id = p.request_id
where t.asked_at < :before and coalesce(r.state, 'reported') = 'reported'
  and not exists (select 1 from peer_transactions n where n.commitment_id = t.commitment_id and n.asked_at >= :before)
  and not exists (select 1 from jobs j where j.key = p.job and j.status not in ('done', 'cancelled'))
limit 1000

-- name: forget_peer_references
delete from peer_commitment_references where commitment_id = :id

-- name: forget_transactions
delete from peer_transactions where commitment_id = :id

-- name: forget_peer_commitment
delete from peer_commitments where id = :id

-- name: unasked_commitments
-- Those of requests that are to be forgotten, whose peer was never asked.
select p.id from peer_commitments p join commitment_requests r on r.id = p.request_id
where r.state = 'reported' and r.asked_at < :before
  and not exists (select 1 from peer_transactions t where t.commitment_id = p.id)
  and not exists (select 1 from jobs j where j.key = p.job and j.status not in ('done', 'cancelled'))
limit 1000

-- name: forget_requests
-- What was promised stays.
delete from commitment_requests where id in (
  select id from commitment_requests r where state = 'reported' and asked_at < :before
    and not exists (select 1 from peer_commitments p where p.request_id = r.id)
  limit 1000
)
