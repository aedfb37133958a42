-- Whose images were removed, by which rule; the rows of study, series and Reports stay.
create table removals (
  id integer primary key,
  study_instance_uid text not null references studies,
  removed_at text not null,
  images integer not null,
  size_bytes integer not null,
  rule text not null
) strict;

create index removals_of_study on removals (study_instance_uid);

-- Files whose rows are gone: removed from the disk next, whatever happens in between.
create table removed_files (
  path text primary key,
  sop_instance_uid text not null
) strict, without rowid;

-- The oldest first, page by page.
create index studies_by_age on studies (last_received_at, study_instance_uid);

-- Where an administrator chose another content than the one that came first: what was made of it is made anew.
create table chosen_contents (
  conflict_id integer primary key references conflicts,
  study_instance_uid text not null,
  content_hash text not null,
  chosen_at text not null
) strict;

create index chosen_contents_of_study on chosen_contents (study_instance_uid);
