//! `quorate lock show` and `quorate lock list`.

use quorate_client::Client;
use quorate_client::wire::{self, LockList};

use crate::cli::exit::Failure;
use crate::cli::lists;
use crate::cli::output::Output;

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    lock: String,
}

impl Show {
    pub(crate) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let lock = client.lock(&self.lock).await?;
        output.table(&lock, &[], || rows(&lock))
    }
}

fn rows(lock: &wire::Lock) -> Vec<Vec<String>> {
    let mut rows = vec![vec!["lock".to_owned(), lock.lock.clone()]];
    for holder in &lock.holders {
        let text = format!("{} for {} ms more", holder.owner, holder.expires_in_ms);
        rows.push(vec!["held by".to_owned(), text]);
        rows.push(vec!["token".to_owned(), holder.token.to_string()]);
        rows.extend(holder.data.iter().map(|data| vec!["data".to_owned(), data.to_string()]));
    }
    if lock.holders.is_empty() {
        rows.push(vec!["held by".to_owned(), "nobody".to_owned()]);
    }
    for waiter in &lock.queue {
        let text = format!("{} for {} ms", waiter.owner, waiter.waiting_ms);
        rows.push(vec!["waiting".to_owned(), text]);
    }
    let hidden = lock.waiters.saturating_sub(lock.queue.len() as u64);
    if hidden > 0 {
        rows.push(vec!["waiting".to_owned(), format!("and {hidden} more")]);
    }
    rows.push(vec!["last token".to_owned(), lock.last_token.to_string()]);
    rows.push(vec!["rev".to_owned(), lock.rev.to_string()]);
    rows
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// At most so many [default: all]
    #[arg(long)]
    limit: Option<u32>,
}

impl List {
    pub(crate) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let page = async |limit, cursor: Option<String>| {
            let page = client.locks(limit, cursor.as_deref()).await?;
            Ok((page.locks, page.next_cursor))
        };
        let locks = lists::all(self.limit, page).await?;
        let list = LockList {
            locks,
            next_cursor: None,
        };
        let header = ["lock", "held by", "token", "expires in ms", "waiting"];
        output.table(&list, &header, || list.locks.iter().map(row).collect())
    }
}

fn row(lock: &wire::Lock) -> Vec<String> {
    let holder = lock.holders.first();
    vec![
        lock.lock.clone(),
        holder.map_or(String::new(), |holder| holder.owner.clone()),
        holder.map_or(String::new(), |holder| holder.token.to_string()),
        holder.map_or(String::new(), |holder| holder.expires_in_ms.to_string()),
        lock.waiters.to_string(),
    ]
}
