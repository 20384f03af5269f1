// SPDX-License-Identifier: Apache-2.0
use hc_spec::{CapabilitySet, ContainerLimits, ContainerSpec, ProcessSpec, Signal};
use jiff::Timestamp;

use super::*;

fn row(name: &str, byte: u8) -> Row {
    let id = Id::from_bytes([byte; 32]);
    let spec = ContainerSpec {
        id: id.clone(),
        rootfs: "r".into(),
        read_only: false,
        tmpfs: Vec::new(),
        shm_bytes: 1,
        limits: ContainerLimits::default(),
        privileged: false,
        capabilities: CapabilitySet::default(),
        stop_signal: Signal::TERM,
        process: ProcessSpec {
            args: vec!["true".into()],
            env: Vec::new(),
            cwd: "/".into(),
            user: String::new(),
            terminal: None,
            capabilities: CapabilitySet::default(),
            no_new_privileges: false,
            rlimits: Vec::new(),
        },
    };
    let record = Record {
        created: Timestamp::UNIX_EPOCH,
        pod: Id::from_bytes([byte + 1; 32]),
        request: hc_api::CreateContainer::default(),
        image_id: "i".into(),
        chain_id: "c".into(),
        labels: [("a".into(), "b".into())].into(),
        spec,
        hostname: "h".into(),
        vcpus: 1,
        memory_mib: 64,
        stop_timeout_seconds: 10,
        origin: None,
        kernel: None,
    };
    Row { id, name: name.parse().unwrap(), record, stored: Stored::Created }
}

#[test]
fn rows_survive_a_reopening_with_their_last_state() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hyper.db");
    let (one, mut two) = (row("one", 1), row("two", 2));
    {
        let database = Database::open(&path).unwrap();
        database.insert(&one).unwrap();
        database.insert(&two).unwrap();
        let ended = PodStatus::starting(7, "fake").lost(Timestamp::UNIX_EPOCH);
        two.stored = Stored::Ended(Box::new(ended));
        database.set(&two.id, &two.stored).unwrap();
    }
    let database = Database::open(&path).unwrap();
    assert_eq!(database.rows().unwrap(), [one.clone(), two]);
    database.delete(&one.id).unwrap();
    database.delete(&one.id).unwrap();
    assert_eq!(database.rows().unwrap().len(), 1);
}

#[test]
fn a_name_is_taken_once() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::open(&dir.path().join("hyper.db")).unwrap();
    database.insert(&row("same", 1)).unwrap();
    database.insert(&row("same", 2)).unwrap_err();
    assert_eq!(database.rows().unwrap().len(), 1);
}

#[test]
fn a_row_that_is_damaged_does_not_hide_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hyper.db");
    let database = Database::open(&path).unwrap();
    database.insert(&row("good", 1)).unwrap();
    database.insert(&row("bad", 2)).unwrap();
    Connection::open(&path)
        .unwrap()
        .execute("UPDATE containers SET record = '{' WHERE name = 'bad'", [])
        .unwrap();
    let rows = database.rows().unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].name.as_str(), "good");
}

#[test]
fn a_file_of_a_newer_version_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hyper.db");
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let Err(error) = Database::open(&path) else { panic!("it was opened") };
    assert!(error.to_string().contains("version 99"), "{error}");
    let version: i64 = Connection::open(&path)
        .unwrap()
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    assert_eq!(version, 99);
}

#[test]
fn what_is_no_database_is_refused_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hyper.db");
    std::fs::write(&path, "not a database, and long enough to be looked at as one".repeat(20))
        .unwrap();
    let Err(error) = Database::open(&path) else { panic!("it was opened") };
    assert!(error.to_string().contains("hyper.db"), "{error}");
}
