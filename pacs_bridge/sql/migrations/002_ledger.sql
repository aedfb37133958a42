create table series_results (
  study_instance_uid text not null,
  series_instance_uid text not null,
  digest text not null,
  -- Which code, detectors and settings made it: another key, another result.
  provenance_key text not null,
  result text not null,
  primary key (study_instance_uid, series_instance_uid, digest, provenance_key)
) strict;

create table reports (
  study_instance_uid text not null,
  version integer not null,
  digest text not null,
  provenance_key text not null,
  status text not null,
  priority text,
  report text not null,
  timings_s text not null,
  remarks text not null default '[]',
  committed_at text not null,
  primary key (study_instance_uid, version)
) strict;

create table result_objects (
  sop_instance_uid text primary key,
  study_instance_uid text not null,
  version integer not null,
  kind text not null,
  object_index integer not null,
  sop_class_uid text not null,
  series_instance_uid text not null,
  path text not null,
  sha256 text not null,
  label text not null,
  foreign key (study_instance_uid, version) references reports (study_instance_uid, version)
) strict;

create index result_objects_of_report on result_objects (study_instance_uid, version);
