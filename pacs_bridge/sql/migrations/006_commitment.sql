-- What callers have asked us to commit to (PS3.4, J.3.2). One Transaction UID with other instances is another row.
create table commitment_requests (
  id integer primary key,
  caller text not null,
  address text not null,
  association text not null,
  transaction_uid text not null,
  digest text not null,
  mode text not null check (mode in ('own', 'relay')),
  asked_at text not null,
  -- How often the same was asked: each time it is reported; and how often it was decided about.
  times integer not null default 1,
  openings integer not null default 1,
  -- open: not decided yet; decided: each instance has its outcome; reported: the caller has heard it, and the instances
  -- are forgotten.
  state text not null default 'open' check (state in ('open', 'decided', 'reported')),
  unique (caller, transaction_uid, digest)
) strict;

create index commitment_requests_unreported on commitment_requests (caller) where state <> 'reported';

create table commitment_references (
  request_id integer not null references commitment_requests,
  place integer not null,
  sop_class_uid text not null,
  sop_instance_uid text not null,
  -- null: open; 0: committed; else the Failure Reason.
  outcome integer,
  primary key (request_id, place)
) strict, without rowid;

create index commitment_references_of_instance on commitment_references (sop_instance_uid);

-- What this archive has promised to keep: retention never removes it.
create table committed_instances (
  sop_instance_uid text primary key,
  request_id integer not null references commitment_requests,
  committed_at text not null
) strict, without rowid;

-- What we have asked peers to commit to, one row for each job that asks; for a caller's request, or for our results.
create table peer_commitments (
  id integer primary key,
  job text not null unique,
  destination text not null,
  request_id integer references commitment_requests,
  -- The job that decides about the request, to be hurried by a report.
  decided_by text,
  -- Its job was given up: the peer is not asked any more.
  given_up integer not null default 0 check (given_up in (0, 1))
) strict;

create index peer_commitments_of_request on peer_commitments (request_id) where request_id is not null;

create table peer_commitment_references (
  commitment_id integer not null references peer_commitments,
  sop_class_uid text not null,
  sop_instance_uid text not null,
  outcome integer,
  failures integer not null default 0,
  primary key (commitment_id, sop_instance_uid)
) strict, without rowid;

-- Each N-ACTION that was sent. A report is taken however late it comes; ended: none is waited for any more.
create table peer_transactions (
  transaction_uid text primary key,
  commitment_id integer not null references peer_commitments,
  asked_at text not null,
  ended integer not null default 0 check (ended in (0, 1))
) strict, without rowid;

create index peer_transactions_of_commitment on peer_transactions (commitment_id);
