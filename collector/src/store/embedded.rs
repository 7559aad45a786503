//! The store in one file beside the collector, on redb.
//!
//! | table    | key          | value                                  |
//! |----------|--------------|----------------------------------------|
//! | meta     | name         | `schema`; `next_event`                 |
//! | hosts    | host         | what is kept of it                     |
//! | progress | host         | how far its agents' events were taken  |
//! | events   | event number | the event                              |
//!
//! A new store is made under another name and then moved into place, so a file
//! under the store's name is always a whole store: anything else is damage, and
//! is never written over.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    StorageError, TableDefinition, TableError,
};

use crate::model::{FleetEvent, HostRecord, Name};

use super::{
    Batch, Error, Progress, Query, Retention, Store,
    record::{
        decode_event, decode_host, decode_progress, encode_event, encode_host, encode_progress,
    },
};

/// Layout of the tables above.
const SCHEMA: u64 = 1;
const FILE: &str = "collector.redb";
const CACHE_BYTES: usize = 32 * 1024 * 1024;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const HOSTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("hosts");
const PROGRESS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("progress");
const EVENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("events");

/// See the module's comment.
#[derive(Debug)]
pub struct Embedded {
    path: PathBuf,
    database: Database,
}

impl Embedded {
    /// Opens the store in `folder`, or makes one where there is none.
    ///
    /// # Errors
    ///
    /// It is in use, damaged, of a newer schema, or the file system refuses.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let file = |source| Error::File { path: path.clone(), source };
        match fs::metadata(&path) {
            Ok(found) if found.len() == 0 => {
                return Err(Error::Damaged { path, what: "it is empty".to_owned() });
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => create(folder, &path)?,
            Err(e) => return Err(file(e)),
        }
        let opened = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .open(&path);
        let store = match opened {
            Ok(database) => Self { path, database },
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(Error::InUse { path }),
            Err(DatabaseError::Storage(StorageError::Io(e))) if !is_damage(&e) => {
                return Err(file(e));
            }
            Err(e) => return Err(Error::Damaged { path, what: e.to_string() }),
        };
        store.check_schema()?;
        Ok(store)
    }

    fn check_schema(&self) -> Result<(), Error> {
        let damaged =
            |what: &str| Error::Damaged { path: self.path.clone(), what: what.to_owned() };
        let read = self.database.begin_read().map_err(redb::Error::from)?;
        let meta = match read.open_table(META) {
            Ok(meta) => meta,
            Err(TableError::Storage(e)) => return Err(damaged(&e.to_string())),
            Err(_) => return Err(damaged("it is no store of a collector")),
        };
        let found = meta.get("schema").map_err(redb::Error::from)?.map(|schema| schema.value());
        match found {
            Some(SCHEMA) => Ok(()),
            Some(found) if found > SCHEMA => {
                Err(Error::Newer { path: self.path.clone(), found, known: SCHEMA })
            }
            _ => Err(damaged("it does not say its schema")),
        }
    }

    fn undecodable(&self, what: &str, e: &prost::DecodeError) -> Error {
        Error::Damaged { path: self.path.clone(), what: format!("{what}: {e}") }
    }

    /// All rows of a table keyed by host.
    fn by_host<T>(
        &self,
        table: TableDefinition<'_, &str, &[u8]>,
        decode: impl Fn(&str, &[u8]) -> Result<T, prost::DecodeError>,
    ) -> Result<Vec<T>, Error> {
        let read = self.database.begin_read().map_err(redb::Error::from)?;
        let rows = read.open_table(table).map_err(redb::Error::from)?;
        let mut all = Vec::new();
        for row in rows.iter().map_err(redb::Error::from)? {
            let (host, bytes) = row.map_err(redb::Error::from)?;
            let decoded = decode(host.value(), bytes.value());
            all.push(decoded.map_err(|e| self.undecodable(host.value(), &e))?);
        }
        Ok(all)
    }
}

/// Makes an empty store, whole or not at all.
fn create(folder: &Path, path: &Path) -> Result<(), Error> {
    let unfinished = folder.join(format!("{FILE}.new"));
    let file = |source| Error::File { path: unfinished.clone(), source };
    // Left behind by a start that was interrupted; never had anything in it.
    match fs::remove_file(&unfinished) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(file(e)),
        _ => {}
    }
    let fill = || -> Result<(), redb::Error> {
        let database = Database::create(&unfinished)?;
        let write = database.begin_write()?;
        {
            let mut meta = write.open_table(META)?;
            meta.insert("schema", SCHEMA)?;
            meta.insert("next_event", 1)?;
            write.open_table(HOSTS)?;
            write.open_table(PROGRESS)?;
            write.open_table(EVENTS)?;
        }
        write.commit()?;
        Ok(database.close()?)
    };
    fill().map_err(|e| match e {
        redb::Error::Io(source) => file(source),
        other => Error::Failed(other),
    })?;
    fs::rename(&unfinished, path)
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(|source| Error::File { path: path.to_owned(), source })
}

/// Whether an error of reading means that the file is not what it should be.
fn is_damage(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

impl Store for Embedded {
    fn hosts(&self) -> Result<Vec<HostRecord>, Error> {
        self.by_host(HOSTS, decode_host)
    }

    fn progress(&self) -> Result<Vec<(Name, Progress)>, Error> {
        self.by_host(PROGRESS, decode_progress)
    }

    fn write(&self, batch: Batch) -> Result<Vec<FleetEvent>, Error> {
        let put = || -> Result<Vec<FleetEvent>, redb::Error> {
            let write = self.database.begin_write()?;
            let mut stored = Vec::with_capacity(batch.events.len());
            {
                let mut hosts = write.open_table(HOSTS)?;
                for record in &batch.hosts {
                    hosts.insert(&*record.host, encode_host(record).as_slice())?;
                }
                let mut progress = write.open_table(PROGRESS)?;
                for (host, sequences) in &batch.progress {
                    progress.insert(&**host, encode_progress(sequences).as_slice())?;
                }
                let mut meta = write.open_table(META)?;
                let mut id = meta.get("next_event")?.map_or(1, |next| next.value());
                let mut events = write.open_table(EVENTS)?;
                for new in batch.events {
                    events.insert(id, encode_event(&new).as_slice())?;
                    let (host, received_unix_ms) = (new.host, new.received_unix_ms);
                    stored.push(FleetEvent { id, host, event: new.event, received_unix_ms });
                    id += 1;
                }
                meta.insert("next_event", id)?;
            }
            write.commit()?;
            Ok(stored)
        };
        Ok(put()?)
    }

    fn events(&self, query: &Query) -> Result<Vec<FleetEvent>, Error> {
        let read = self.database.begin_read().map_err(redb::Error::from)?;
        let table = read.open_table(EVENTS).map_err(redb::Error::from)?;
        let (mut found, mut room) = (Vec::new(), query.bytes);
        for row in table.iter().map_err(redb::Error::from)?.rev() {
            if found.len() >= query.limit {
                break;
            }
            let (id, bytes) = row.map_err(redb::Error::from)?;
            let event = decode_event(id.value(), bytes.value())
                .map_err(|e| self.undecodable(&format!("event {}", id.value()), &e))?;
            // Events are numbered as they were received: nothing older can match.
            if event.received_unix_ms < query.since_unix_ms {
                break;
            }
            if query.matches(&event) {
                let Some(rest) = room.checked_sub(bytes.value().len()) else { break };
                room = rest;
                found.push(event);
            }
        }
        found.reverse();
        Ok(found)
    }

    fn prune(&self, retention: Retention, at_most: usize) -> Result<usize, Error> {
        let remove = || -> Result<usize, redb::Error> {
            let surplus = {
                let read = self.database.begin_read()?;
                let table = read.open_table(EVENTS)?;
                let beyond = table.len()?.saturating_sub(retention.events);
                let mut surplus = 0;
                for row in table.iter()?.take(at_most) {
                    let (id, bytes) = row?;
                    let old = decode_event(id.value(), bytes.value())
                        .is_ok_and(|event| event.received_unix_ms < retention.since_unix_ms);
                    if surplus >= beyond && !old {
                        break;
                    }
                    surplus += 1;
                }
                surplus as usize
            };
            if surplus == 0 {
                return Ok(0);
            }
            let write = self.database.begin_write()?;
            {
                let mut table = write.open_table(EVENTS)?;
                for _ in 0..surplus {
                    table.pop_first()?;
                }
            }
            write.commit()?;
            Ok(surplus)
        };
        Ok(remove()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Event, HostFacts, Severity},
        store::NewEvent,
    };

    fn event(host: &str, sequence: u64, received_unix_ms: u64) -> NewEvent {
        let event = Event {
            sequence,
            unix_ms: 7,
            kind: "process.exit".to_owned(),
            severity: Severity::Critical,
            unit: "a.service".to_owned(),
            message: "it ended".to_owned(),
            fields: vec![("code".to_owned(), "7".to_owned())],
        };
        NewEvent { host: host.into(), event, received_unix_ms }
    }

    fn events(events: Vec<NewEvent>) -> Batch {
        Batch { events, ..Batch::default() }
    }

    fn ids(store: &Embedded, query: &Query) -> Vec<u64> {
        store.events(query).unwrap().iter().map(|event| event.id).collect()
    }

    #[test]
    fn everything_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let facts = HostFacts {
            boot_id: "b".to_owned(),
            incarnation: u64::MAX,
            agent_version: "1".to_owned(),
            kernel_release: "6".to_owned(),
            os_name: "os".to_owned(),
            cpus: 2,
            memory_bytes: 3,
        };
        let (first_seen_unix_ms, last_seen_unix_ms) = (4, 5);
        let host =
            HostRecord { host: "a".into(), facts, first_seen_unix_ms, last_seen_unix_ms, up: true };
        let progress = ("a".into(), vec![(u64::MAX, 9), (1, 2)]);
        let batch = Batch {
            hosts: vec![host.clone()],
            events: vec![event("a", 1, 10), event("a", 2, 11)],
            progress: vec![progress.clone()],
        };
        let store = Embedded::open(folder.path()).unwrap();
        let stored = store.write(batch).unwrap();
        assert!(matches!(Embedded::open(folder.path()), Err(Error::InUse { .. })));
        drop(store);

        let store = Embedded::open(folder.path()).unwrap();
        assert_eq!(store.hosts().unwrap(), [host]);
        assert_eq!(store.progress().unwrap(), [progress]);
        assert_eq!(
            store.events(&Query { limit: 10, bytes: 1 << 20, ..Query::default() }).unwrap(),
            stored
        );
    }

    #[test]
    fn queries_filter_and_take_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        store
            .write(events((1..=9).map(|n| event(["a", "b"][n as usize % 2], n, n)).collect()))
            .unwrap();
        let all = Query { limit: 100, bytes: 1 << 20, ..Query::default() };
        assert_eq!(ids(&store, &Query { limit: 2, ..all.clone() }), [8, 9]);
        assert_eq!(ids(&store, &Query { host: "a".to_owned(), ..all.clone() }), [2, 4, 6, 8]);
        assert_eq!(ids(&store, &Query { since_unix_ms: 8, ..all.clone() }), [8, 9]);
        assert_eq!(ids(&store, &Query { bytes: 150, ..all.clone() }), [8, 9]);
        assert_eq!(ids(&store, &Query { unit: "b.service".to_owned(), ..all.clone() }), [0; 0]);
        assert_eq!(ids(&store, &Query { kind: "process.exit".to_owned(), ..all }).len(), 9);
    }

    #[test]
    fn pruning_goes_by_number_and_age_and_numbers_are_not_reused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        store.write(events((1..=10).map(|n| event("a", n, n * 10)).collect())).unwrap();
        let prune = |events, since_unix_ms, at_most| {
            store.prune(Retention { events, since_unix_ms }, at_most).unwrap()
        };
        assert_eq!((prune(100, 0, 100), prune(8, 0, 1), prune(8, 0, 100)), (0, 1, 1));
        assert_eq!(prune(100, 61, 100), 4);
        assert_eq!(
            ids(&store, &Query { limit: 100, bytes: 1 << 20, ..Query::default() }),
            [7, 8, 9, 10]
        );
        assert_eq!(prune(0, 0, 100), 4);
        let next = store.write(events(vec![event("a", 11, 1)])).unwrap();
        assert_eq!(next[0].id, 11);
    }

    #[test]
    fn damage_and_newer_schemas_are_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        drop(Embedded::open(folder.path()).unwrap());
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped.iter_mut().skip(4096).for_each(|byte| *byte ^= 0x5A);

        let half = whole[..whole.len() / 2].to_vec();
        for bad in [Vec::new(), b"not a database at all".to_vec(), half, vec![0; 8192], flipped] {
            fs::write(&path, &bad).unwrap();
            let error = Embedded::open(folder.path()).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{} bytes: {error:?}", bad.len());
            assert_eq!(fs::read(&path).unwrap(), bad);
        }

        fs::write(&path, &whole).unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        let write = store.database.begin_write().unwrap();
        write.open_table(META).unwrap().insert("schema", SCHEMA + 1).unwrap();
        write.commit().unwrap();
        drop(store);
        let error = Embedded::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("schema 2") && error.contains("upgrade"), "{error}");
    }
}
