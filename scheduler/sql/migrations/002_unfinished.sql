-- What is not over, of whatever kind: few among millions that are.
create index jobs_unfinished on jobs (status) where status in ('ready', 'running', 'held', 'buried');
