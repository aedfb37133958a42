-- What scanners report of their procedure steps (MPPS), one row each; see procedure_steps.py.
create table procedure_steps (
  sop_instance_uid text primary key,
  status text not null check (status in ('IN PROGRESS', 'COMPLETED', 'DISCONTINUED')),
  -- What it says of studies and series, as JSON: see procedure_steps.ProcedureStep.
  said text not null check (json_valid(said)),
  calling_ae text not null,
  created_at text not null,
  changed_at text not null
) strict;

-- Which instances somebody said that a series has; see declarations.py.
create table declared_lists (
  study_instance_uid text not null,
  series_instance_uid text not null,
  -- Hash of the names: the same list told again is one.
  digest text not null,
  sop_instance_uids text not null check (json_valid(sop_instance_uids)),
  whole integer not null check (whole in (0, 1)),
  awaited integer not null check (awaited in (0, 1)),
  declared_at text not null,
  primary key (study_instance_uid, series_instance_uid, digest, whole, awaited)
) strict;

create index declared_lists_by_age on declared_lists (declared_at);

-- Which result objects a destination has, and which rejection note has told it that they were superseded.
create table sent_objects (
  sop_instance_uid text not null references result_objects on delete cascade,
  destination text not null,
  sent_at text not null,
  rejected_by text,
  primary key (sop_instance_uid, destination)
) strict;
