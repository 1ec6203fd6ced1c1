//! Damage to a real data directory, seen by a hub that starts on it: a sentence that says what to do, an unchanged disk.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use windlass_hub::{
    config::{Config, Flags},
    init::init,
    node::Node,
};
use windlass_tests::{Workdir, scenario};

/// What is done to the store's folder, and what the refusal has to say.
type Case = (&'static str, fn(&Path) -> Result<()>, &'static [&'static str]);

const REMOVE: &str = "windlass hub remove";

const CASES: [Case; 10] = [
    ("a flipped bit", |store| change(store, |bytes| bytes[200] ^= 4), &["is damaged", REMOVE]),
    ("a hole", |store| change(store, |bytes| bytes[300..400].fill(0)), &["is damaged", REMOVE]),
    ("a lost end", |store| cut(store, |length| length - 1), &["was acknowledged", "may not vote", REMOVE]),
    ("a file cut to half", |store| cut(store, |length| length / 2), &["was acknowledged", REMOVE]),
    ("an empty file", |store| cut(store, |_| 0), &["is damaged", REMOVE]),
    ("a wiped journal", |store| Ok(fs::remove_dir_all(store.join("journal"))?), &["the disk was wiped", REMOVE]),
    ("a missing segment", |store| Ok(fs::remove_file(segment(store))?), &["the disk was wiped", REMOVE]),
    ("a newer format", |store| identity(store, "format 2", "format 9"), &["store format 9", "start the newer release"]),
    ("another node's identity", |store| identity(store, "node 1", "node 2"), &["STORE is damaged", REMOVE]),
    ("no identity", |store| Ok(fs::remove_file(store.join("STORE"))?), &["holds no store", "windlass-hub init"]),
];

#[test]
fn damage_is_named_with_what_to_do_and_nothing_is_changed() -> Result<()> {
    scenario(async {
        let dir = Workdir::new("damage")?;
        let (whole, other) = (dir.join("whole"), dir.join("other"));
        init(&config(&dir, &whole)?).await?;
        init(&config(&dir, &other)?).await?;
        for (name, damage, sentences) in CASES {
            let data = dir.join("damaged");
            copy(&whole, &data)?;
            damage(&data.join("store"))?;
            refused(&dir, &data, sentences).await.with_context(|| name)?;
        }
        let data = dir.join("damaged");
        copy(&whole, &data)?;
        fs::remove_dir_all(data.join("store/journal"))?;
        copy(&other.join("store/journal"), &data.join("store/journal"))?;
        refused(&dir, &data, &["belongs to another store", REMOVE]).await.context("the journal of another hub")?;

        // What a crash leaves of a write that nobody was told of is no damage.
        copy(&whole, &data)?;
        let path = segment(&data.join("store"));
        let torn = [fs::read(&path)?, vec![0; 700]].concat();
        fs::write(&path, torn)?;
        Node::start(&config(&dir, &data)?).await?.stop().await;
        Ok(())
    })
}

async fn refused(dir: &Workdir, data: &Path, sentences: &[&str]) -> Result<()> {
    let before = contents(data)?;
    let error = match Node::start(&config(dir, data)?).await {
        Ok(node) => {
            node.stop().await;
            anyhow::bail!("the hub starts");
        }
        Err(error) => format!("{error:#}"),
    };
    for sentence in sentences {
        ensure!(error.contains(sentence), "{sentence:?} is not in: {error}");
    }
    ensure!(before == contents(data)?, "the disk was changed");
    Ok(())
}

fn config(dir: &Workdir, data: &Path) -> Result<Config> {
    let key = dir.join("operator.key");
    let any = "127.0.0.1:0";
    let text = format!(
        "data = {data:?}\noperator_key_file = {key:?}\nlisten_agents = {any:?}\nlisten_api = {any:?}\n\
         listen_peers = {any:?}\n"
    );
    let config = Some(dir.write("hub.toml", text)?);
    Ok(Config::load(&Flags { config, ..Flags::default() })?)
}

fn segment(store: &Path) -> PathBuf {
    store.join("journal/segment-0000000000000000.journal")
}

fn change(store: &Path, change: fn(&mut [u8])) -> Result<()> {
    let mut bytes = fs::read(segment(store))?;
    change(&mut bytes);
    Ok(fs::write(segment(store), bytes)?)
}

fn cut(store: &Path, length: fn(u64) -> u64) -> Result<()> {
    let file = File::options().write(true).open(segment(store))?;
    Ok(file.set_len(length(file.metadata()?.len()))?)
}

fn identity(store: &Path, from: &str, to: &str) -> Result<()> {
    let path = store.join("STORE");
    Ok(fs::write(&path, fs::read_to_string(&path)?.replace(from, to))?)
}

fn contents(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(contents(&path)?);
        } else {
            found.insert(path.clone(), fs::read(&path)?);
        }
    }
    Ok(found)
}

/// Makes `to` a copy of `from`.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
