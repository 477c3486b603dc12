import type { Database } from '../db/client.ts'
import { arrayText, isUniqueViolation, type Row, rfc3339 } from '../db/statement.ts'
import { DatabaseUnavailable } from '../db/unavailable.ts'
import type { NewUser } from './schemas.ts'
import { statements } from './statements.ts'

export type NewRow = NewUser & { key: string | null; hash: string | null }
export type Inserted = { id: number; createdAt: string }
type Entry = {
  row: NewRow
  /** What no other row of its statement may share. */
  keys: string[]
  /** When it came: its deadline counts from then. */
  since: number
  resolve(inserted: Inserted | undefined): void
  reject(error: unknown): void
}

/** Rows a statement inserts at most: long enough to share a commit, short enough to hold no connection for long. */
const BATCH_MAX = 200
/** Statements under way at a time: the next batch collects while these commit. */
const IN_FLIGHT_MAX = 2

/** How long after a conflict more of them are expected: so often at most does one fail a whole statement. */
const CONFLICTS_EXPECTED_MS = 1000

/** As PostgreSQL folds them, but for rare letters: those it finds in one statement itself. */
const foldedOf = (value: string) => value.toUpperCase().toLowerCase().normalize('NFC')

/**
 * Inserts rows, those that wait at the same moment together in one statement and so in one commit. A lone row
 * goes at once. Each caller gets its own answer: what was inserted, or undefined when another user has one of
 * its keys. Rows that share a key go one after the other, so that the one that came first wins.
 */
export function createInsertQueue(db: Database) {
  let waiting: Entry[] = []
  let inFlight = 0
  let scheduled = false
  let conflictsUntil = Number.NEGATIVE_INFINITY
  /** The keys of the rows in flight. */
  const inFlightKeys = new Set<string>()

  /** The next rows that share no key with each other or with those in flight, as they came; the others stay. */
  function nextBatch(): Entry[] {
    const batch: Entry[] = []
    const left: Entry[] = []
    const taken = new Set<string>()
    for (const entry of waiting) {
      const stays = batch.length === BATCH_MAX || entry.keys.some((key) => inFlightKeys.has(key) || taken.has(key))
      ;(stays ? left : batch).push(entry)
      for (const key of entry.keys) taken.add(key)
    }
    waiting = left
    return batch
  }

  /** In one statement, or in two where one of several meets a conflict that was not expected. */
  async function insert(batch: Entry[]): Promise<Row[]> {
    const rows = batch.map(({ row }) => row).sort((a, b) => (a.username < b.username ? -1 : 1))
    const values = {
      usernames: arrayText(rows.map((row) => row.username)),
      emails: arrayText(rows.map((row) => row.email)),
      keys: arrayText(rows.map((row) => row.key)),
      hashes: arrayText(rows.map((row) => row.hash)),
    }
    const since = batch[0]?.since
    if (rows.length > 1 && performance.now() > conflictsUntil) {
      try {
        return await statements.insert(db.write, values, since)
      } catch (error) {
        if (!isUniqueViolation(error)) throw error
        conflictsUntil = performance.now() + CONFLICTS_EXPECTED_MS
      }
    }
    return await statements.insertOrSkip(db.write, values, since)
  }

  async function send(batch: Entry[]): Promise<void> {
    const answers = new Map<unknown, Inserted>()
    for (const [id, username, createdAt] of await insert(batch)) {
      answers.set(username, { id: Number(id), createdAt: rfc3339(createdAt as string) })
    }
    for (const entry of batch) settle(entry, () => entry.resolve(answers.get(entry.row.username)))
  }

  /** Answers its caller and lets those go who wait for its keys. */
  function settle({ keys }: Entry, answer: () => void) {
    for (const key of keys) inFlightKeys.delete(key)
    answer()
    schedule()
  }

  /** Whether one row may have failed them all, by a rule or a lock: none was inserted, so each may go by itself. */
  const mayBeOneRowsFault = (error: unknown) => !(error instanceof DatabaseUnavailable) || error.isOfRow

  function failed(batch: Entry[], error: unknown) {
    if (batch.length > 1 && mayBeOneRowsFault(error)) {
      for (const entry of batch) void send([entry]).catch((reason) => failed([entry], reason))
    } else {
      for (const entry of batch) settle(entry, () => entry.reject(error))
    }
  }

  function sendWaiting() {
    scheduled = false
    while (inFlight < IN_FLIGHT_MAX) {
      const batch = nextBatch()
      if (batch.length === 0) return
      for (const key of batch.flatMap((entry) => entry.keys)) inFlightKeys.add(key)
      inFlight++
      void send(batch)
        .catch((error) => failed(batch, error))
        .finally(() => {
          inFlight--
          schedule()
        })
    }
  }

  /** At the end of this turn of the event loop, when all requests that came with it have been read. */
  function schedule() {
    if (scheduled || waiting.length === 0) return
    scheduled = true
    setImmediate(sendWaiting)
  }

  return {
    add(row: NewRow): Promise<Inserted | undefined> {
      const keys = [`u${foldedOf(row.username)}`, `e${foldedOf(row.email)}`]
      if (row.key !== null) keys.push(`k${row.key}`)
      return new Promise((resolve, reject) => {
        waiting.push({ row, keys, since: performance.now(), resolve, reject })
        schedule()
      })
    },
  }
}
