create table studies (
  study_instance_uid text primary key,
  study_key text not null unique,
  patient_id text not null,
  patient_name text not null,
  accession_number text not null,
  description text not null,
  -- kept: nothing in it is ours to analyse; open: being received; quiet: nothing came for the quiet period.
  state text not null default 'kept' check (state in ('kept', 'open', 'quiet')),
  evidence text,
  first_received_at text not null,
  last_received_at text not null
) strict;

create table series (
  series_instance_uid text not null,
  study_instance_uid text not null references studies,
  modality text not null,
  series_number integer,
  description text not null,
  state text not null default 'kept' check (state in ('kept', 'open', 'complete')),
  evidence text,
  primary key (study_instance_uid, series_instance_uid)
) strict;

create table instances (
  id integer primary key,
  sop_instance_uid text not null,
  sha256 text not null,
  study_instance_uid text not null,
  series_instance_uid text not null,
  sop_class_uid text not null,
  transfer_syntax text not null,
  path text not null,
  size_bytes integer not null,
  is_current integer not null check (is_current in (0, 1)),
  is_ours integer not null check (is_ours in (0, 1)),
  calling_ae text not null,
  received_at text not null,
  facts text not null check (json_valid(facts)),
  unique (sop_instance_uid, sha256),
  foreign key (study_instance_uid, series_instance_uid) references series (study_instance_uid, series_instance_uid)
) strict;

-- One content of a SOP instance is the current one, whoever writes to this table.
create unique index instances_current on instances (sop_instance_uid) where is_current = 1;
create index instances_of_series on instances (study_instance_uid, series_instance_uid);

create table conflicts (
  id integer primary key,
  kind text not null check (kind in ('content', 'patient')),
  study_instance_uid text not null references studies,
  -- content: the SOP Instance UID, and the two files; patient: empty, and the two patient IDs.
  sop_instance_uid text not null,
  kept text not null,
  other text not null,
  found_at text not null,
  accepted_at text,
  unique (kind, study_instance_uid, sop_instance_uid, kept, other)
) strict;

create index conflicts_open on conflicts (study_instance_uid) where accepted_at is null;
