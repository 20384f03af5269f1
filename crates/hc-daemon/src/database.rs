// SPDX-License-Identifier: Apache-2.0
//! What must survive the daemon: one SQLite file.
//!
//! A row is a container with the pod around it. The columns that rules depend on are columns (the
//! unique name); the rest is JSON, versioned with the schema. Memory holds the same rows, so the
//! database is read once, at start, and written at every change.
//!
//! # Invariants
//!
//! - The schema's version is the file's `user_version`. There is one path from each version to the
//!   next, walked in one transaction; a file of a newer version is refused, not guessed at.
//! - Write-ahead logging: a kill at any instant leaves the last committed state.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hc_pod::PodStatus;
use hc_spec::{Id, Name};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use crate::record::Record;

/// Each entry leads from the schema of its index to the next.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE containers (
        id     TEXT PRIMARY KEY,
        name   TEXT NOT NULL UNIQUE,
        record TEXT NOT NULL,
        phase  TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
"];

/// Where a container is in its life, as far as it must survive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stored {
    /// Never started.
    Created,
    /// A pod process has been or is being started; how it fares is asked of its folder.
    Started,
    /// The last run is over.
    Ended(Box<PodStatus>),
    /// Its files are being removed.
    Removing,
}

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) id: Id,
    pub(crate) name: Name,
    pub(crate) record: Record,
    pub(crate) stored: Stored,
}

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    #[error("cannot use database {}", path.display())]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    #[error("database {} is of version {found}, and this program knows up to {known}", path.display())]
    TooNew { path: PathBuf, found: usize, known: usize },
}

/// The open database.
pub(crate) struct Database {
    connection: Mutex<Connection>,
}

impl Database {
    /// Opens or makes the database at `path` and brings it to the present schema.
    pub(crate) fn open(path: &Path) -> Result<Database, DatabaseError> {
        let fail = |source| DatabaseError::Sqlite { path: path.to_owned(), source };
        let mut connection = Connection::open(path).map_err(fail)?;
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
            .map_err(fail)?;
        let version: usize = connection
            .query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))
            .map(|version| usize::try_from(version).unwrap_or(usize::MAX))
            .map_err(fail)?;
        let Some(steps) = MIGRATIONS.get(version..) else {
            let known = MIGRATIONS.len();
            return Err(DatabaseError::TooNew { path: path.to_owned(), found: version, known });
        };
        let transaction = connection.transaction().map_err(fail)?;
        for step in steps {
            transaction.execute_batch(step).map_err(fail)?;
        }
        let version = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
        transaction.pragma_update(None, "user_version", version).map_err(fail)?;
        transaction.commit().map_err(fail)?;
        Ok(Database { connection: Mutex::new(connection) })
    }

    /// Every row. One that cannot be understood is passed over and told in the log: it must not
    /// hide the others.
    pub(crate) fn rows(&self) -> rusqlite::Result<Vec<Row>> {
        let connection = self.lock();
        let mut statement = connection.prepare("SELECT id, name, record, phase FROM containers")?;
        let texts = statement.query_map([], |row| {
            Ok([row.get::<_, String>(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
        })?;
        let mut rows = Vec::new();
        for text in texts {
            let [id, name, record, stored] = text?;
            if let Some(row) = parse(&id, &name, &record, &stored) {
                rows.push(row);
            } else {
                tracing::error!(id, "container's row cannot be understood");
            }
        }
        Ok(rows)
    }

    /// Adds a row. Fails on a name or id that is there.
    pub(crate) fn insert(&self, row: &Row) -> rusqlite::Result<()> {
        self.lock().execute(
            "INSERT INTO containers (id, name, record, phase) VALUES (?1, ?2, ?3, ?4)",
            params![row.id.as_str(), row.name.as_str(), json(&row.record), json(&row.stored)],
        )?;
        Ok(())
    }

    /// Changes where a container is in its life.
    pub(crate) fn set(&self, id: &Id, stored: &Stored) -> rusqlite::Result<()> {
        self.lock().execute(
            "UPDATE containers SET phase = ?2 WHERE id = ?1",
            params![id.as_str(), json(stored)],
        )?;
        Ok(())
    }

    /// Removes a row. No error if it is gone.
    pub(crate) fn delete(&self, id: &Id) -> rusqlite::Result<()> {
        self.lock().execute("DELETE FROM containers WHERE id = ?1", params![id.as_str()])?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic elsewhere cannot leave a transaction open: each call is one statement.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(id: &str, name: &str, record: &str, stored: &str) -> Option<Row> {
    Some(Row {
        id: id.parse().ok()?,
        name: name.parse().ok()?,
        record: serde_json::from_str(record).ok()?,
        stored: serde_json::from_str(stored).ok()?,
    })
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our types hold nothing that JSON cannot")
}

#[cfg(test)]
mod tests;
