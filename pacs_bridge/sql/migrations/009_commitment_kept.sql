-- Files whose fsync has failed. Linux tells of it once, so that no later fsync of the same file proves anything; what is
-- named here has to be written anew before it is promised.
create table files_in_doubt (
  path text primary key,
  found_at text not null
) strict, without rowid;

-- A caller is its AE title and its address; what it has heard is forgotten after a time, and its number never used again.
-- A promise outlives the request that it was given to.
pragma defer_foreign_keys = on;

create table promises as select * from committed_instances;

drop table committed_instances;

create table committed_instances (
  sop_instance_uid text primary key,
  request_id integer not null,
  committed_at text not null
) strict, without rowid;

insert into committed_instances (sop_instance_uid, request_id, committed_at)
select sop_instance_uid, request_id, committed_at from promises;

drop table promises;

create table requests as select * from commitment_requests;

drop table commitment_requests;

create table commitment_requests (
  id integer primary key autoincrement,
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
  unique (caller, address, transaction_uid, digest)
) strict;

insert into commitment_requests (
  id, caller, address, association, transaction_uid, digest, mode, asked_at, times, openings, state
)
select id, caller, address, association, transaction_uid, digest, mode, asked_at, times, openings, state from requests;

drop table requests;

create index commitment_requests_unreported on commitment_requests (caller, address) where state <> 'reported';
create index commitment_requests_by_age on commitment_requests (asked_at) where state = 'reported';
create index peer_transactions_by_age on peer_transactions (asked_at);
