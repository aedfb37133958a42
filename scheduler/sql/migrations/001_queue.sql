create table jobs (
  key text primary key,
  kind text not null,
  payload text not null check (json_valid(payload)),
  "group" text,
  caller text,
  priority integer not null,
  memory_mb integer not null check (memory_mb >= 0),
  status text not null check (status in ('ready', 'running', 'done', 'held', 'buried', 'cancelled')),
  attempt integer not null check (attempt >= 0),
  max_attempts integer not null check (max_attempts >= 1),
  created_at text not null,
  place_at text not null,
  next_at text not null,
  lease_until text,
  reason text,
  check ((status = 'running') = (lease_until is not null))
) strict;

-- The line; a claim reads it from its head.
create index jobs_in_line on jobs (place_at, key) where status = 'ready';
create index jobs_of_caller_in_line on jobs (caller, priority) where status = 'ready';
create index jobs_running on jobs (lease_until) where status = 'running';
-- Jobs of one group never run at the same time, whoever writes to this table.
create unique index jobs_one_of_a_group_runs on jobs ("group") where status = 'running' and "group" is not null;
create index jobs_by_age on jobs (created_at);
