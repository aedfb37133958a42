-- The hash says by which algorithm it was made: BLAKE3 from now on.
alter table instances rename column sha256 to content_hash;
update instances set content_hash = 'sha256:' || content_hash;
update conflicts set kept = 'sha256:' || kept, other = 'sha256:' || other where kind = 'content';
