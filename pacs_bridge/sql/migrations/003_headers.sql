-- What decides how the pixels are read, packed by reconstruction.headers; null: not read yet, it is read from the file.
alter table instances add column header text;
