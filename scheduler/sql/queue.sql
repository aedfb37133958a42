-- name: submit
insert into jobs (
  key, kind, payload, "group", caller, priority, memory_mb, status, attempt, max_attempts,
  created_at, place_at, next_at, lease_until, reason
) values (
  :key, :kind, :payload, :group, :caller, :priority, :memory_mb, :status, :attempt, :max_attempts,
  :created_at, :place_at, :next_at, :lease_until, :reason
) on conflict (key) do nothing

-- name: ahead
select count(*) as ahead from jobs where status = 'ready' and caller = :caller and priority >= :priority

-- name: expired
select * from jobs
where status = 'running' and lease_until <= :now and kind in (select value from json_each(:kinds))
order by lease_until

-- name: waiting
select * from jobs as waiting
where status = 'ready' and next_at <= :now and kind in (select value from json_each(:kinds))
  and not exists (
    select 1 from jobs as running where running.status = 'running' and running."group" = waiting."group"
  )
order by place_at, key
limit :window

-- name: running
select * from jobs where status = 'running' and kind in (select value from json_each(:kinds))

-- name: claim
update jobs set status = :status, attempt = attempt + 1, lease_until = :lease_until
where key = :key and status = 'ready'
  and not exists (
    select 1 from jobs as running where running.status = 'running' and running."group" = jobs."group"
  )
returning *

-- name: settle
update jobs set status = :status, next_at = coalesce(:next_at, next_at), lease_until = :lease_until,
  max_attempts = :max_attempts, reason = iif(:status = 'running', reason, :reason)
where key = :key and attempt = :attempt and status = 'running'
returning key

-- name: recover
update jobs set status = :status, next_at = :now, lease_until = null
where status = 'running' and attempt < max_attempts

-- name: recover_exhausted
update jobs set lease_until = :now where status = 'running' and lease_until > :now

-- name: jobs
select * from jobs where status in (select value from json_each(:statuses)) order by created_at desc, key limit :limit

-- name: job
select * from jobs where key = :key

-- name: move
update jobs set status = :status, reason = :reason, next_at = :next_at, max_attempts = :max_attempts
where key = :key and status = :before

-- name: hurry
update jobs set next_at = :now where key = :key and status = 'ready' and next_at > :now returning key
