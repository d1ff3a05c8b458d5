#!/bin/sh
# person-sync.sh PEOPLE INDEX BEGAN: deletes the search index and fills it again, page by page, two minutes for each.
# As in the engine that it stands for, nothing in the index keeps two of these from adding the same person twice.
set -eu
. "$(dirname "$0")/clock.sh"

people=$1
index=$2
began=$3
pages=10
page_size=20

sql() { sqlite3 -bail -cmd '.timeout 60000' "$index" "$1"; }

sql 'BEGIN IMMEDIATE; DROP TABLE IF EXISTS person; CREATE TABLE person (id INTEGER NOT NULL, name TEXT NOT NULL); COMMIT'
page=0
while [ $page -lt $pages ]; do
    until_minute $((began + 2 * page))
    sql "ATTACH '$people' AS source;
         INSERT INTO main.person SELECT id, name FROM source.person ORDER BY id LIMIT $page_size OFFSET $((page * page_size))"
    page=$((page + 1))
    tell "has indexed page $page of $pages"
done
until_minute $((began + 2 * pages))
