-- What is passed on as it came: one row for each destination and archived instance.
create table forwards (
  destination text not null,
  instance_id integer not null references instances (id) on delete cascade,
  study_instance_uid text not null,
  state text not null check (state in ('pending', 'sent', 'refused')),
  -- The job that sends it; null while none has been made.
  batch integer,
  -- Why it was refused.
  reason text,
  changed_at text not null,
  primary key (destination, instance_id)
) strict, without rowid;

-- What no job has been made for: looked at every second, and nearly always empty.
create index forwards_unbatched on forwards (destination, study_instance_uid)
where state = 'pending' and batch is null;
create index forwards_of_batch on forwards (batch) where state = 'pending' and batch is not null;
create index forwards_of_study on forwards (study_instance_uid, destination, state);
-- What is not settled, or not well.
create index forwards_open on forwards (study_instance_uid, destination) where state <> 'sent';
create index forwards_of_instance on forwards (instance_id);

create table forward_batches (
  number integer primary key autoincrement,
  destination text not null,
  study_instance_uid text not null
) strict;

-- What the versions of a study's Report have said, for images that come late.
create table forward_verdicts (
  study_instance_uid text not null,
  findings text not null check (json_valid(findings)),
  priority text not null,
  primary key (study_instance_uid, findings, priority)
) strict, without rowid;

-- Destinations that could not be reached when last asked; one that answers has no row.
create table contact_lost (
  destination text primary key,
  since text not null,
  failures integer not null,
  next_at text not null,
  reason text not null
) strict, without rowid;
