-- name: instances
-- Those that were received, page by page: all, of one study, or since an instant.
select i.id, i.path, i.content_hash, i.sop_instance_uid, i.sop_class_uid, i.transfer_syntax, s.study_key
from instances i join studies s on s.study_instance_uid = i.study_instance_uid
where i.id > :after and i.id <= :last
  and (:study is null or i.study_instance_uid = :study) and (:since is null or i.received_at >= :since)
order by i.id
limit :limit

-- name: instances_extent
select count(*) as files, coalesce(max(id), 0) as last from instances
where (:study is null or study_instance_uid = :study) and (:since is null or received_at >= :since)

-- name: objects
-- Those that were made, page by page.
select o.rowid as id, o.path, o.sha256, o.sop_instance_uid, s.study_key
from result_objects o
join reports r on r.study_instance_uid = o.study_instance_uid and r.version = o.version
left join studies s on s.study_instance_uid = o.study_instance_uid
where o.rowid > :after and o.rowid <= :last
  and (:study is null or o.study_instance_uid = :study) and (:since is null or r.committed_at >= :since)
order by o.rowid
limit :limit

-- name: objects_extent
select count(*) as files, coalesce(max(o.rowid), 0) as last
from result_objects o
join reports r on r.study_instance_uid = o.study_instance_uid and r.version = o.version
where (:study is null or o.study_instance_uid = :study) and (:since is null or r.committed_at >= :since)

-- name: is_instance
select 1 from instances where sop_instance_uid = :sop_instance_uid and path = :path

-- name: is_marked
select 1 from removed_files where path = :path
