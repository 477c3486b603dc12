import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { at } from '../db/columnar.ts'
import { gather } from '../db/gather.ts'
import type { Pool, Use } from '../db/pool.ts'
import { arrayText, type Run } from '../db/statement.ts'
import { DatabaseUnavailable, isConstraintViolation, isHeldRow, isUniqueViolation } from '../db/unavailable.ts'
import { encodeCursor } from './cursor.ts'
import { createMutex } from './mutex.ts'
import type { NewUser, User } from './schemas.ts'
import * as statements from './statements.ts'
import { FIELDS, type Field, type JoinedUsers, usersOf } from './statements.ts'

/** A user and the version that its entity tag names: 1 at first, one more after each change. */
export type StoredUser = { user: User; version: number }
export type Conflict = { outcome: 'conflict'; fields: Field[] }
/** Versions that a change may start from; undefined for any. */
export type Versions = readonly number[] | undefined
type Missed = { outcome: 'missing' } | { outcome: 'stale' }

export type UserStore = ReturnType<typeof createUserStore>

type ListOptions = { limit: number; after: number; username?: string | undefined; email?: string | undefined }
type NewRow = NewUser & { key: string | null; hash: string | null }

/** Users that a statement of a stream reads. */
const STREAM_BATCH = 100
/** How long a stream rests while others wait, as a multiple of the time that its last statement took. */
const STREAM_REST = 9
/** Short of any time-out of its client. */
const STREAM_REST_MAX_MS = 1000

/** No user has it: identities begin at 1. */
const NO_ID = 0
/** How often an insert is tried that met a rival who was gone when we looked. */
const INSERT_ATTEMPTS = 3
/** After a conflict, rows that conflict are skipped for this long: so often at most does one fail a batch. */
const CONFLICTS_EXPECTED_MS = 1000

const versionsText = (versions: Versions) => (versions ? arrayText(versions) : null)

const toStored = ({ version, ...user }: User & { version: number }): StoredUser => ({ user, version })

/** A user's row as it was just after its creation: so its first answer can be given again. */
const asCreated = (id: number, { username, email }: NewUser, createdAt: string): StoredUser => ({
  user: { id, username, email, createdAt, updatedAt: createdAt },
  version: 1,
})

/** As PostgreSQL folds them, but for rare letters: PostgreSQL finds those that are the same in one statement. */
const folded = (value: string) => value.toUpperCase().toLowerCase().normalize('NFC')

/**
 * The users in PostgreSQL. Each function takes `until`, the deadline of its request as a time of performance.now().
 * Each throws DatabaseUnavailable when the database cannot be asked in time.
 */
export function createUserStore(db: Pool) {
  const runAs =
    (use: Use, until: number): Run =>
    (text, parameters) =>
      db.query(use, text, parameters, until)
  const runExclusive = createMutex()
  let conflictsUntil = Number.NEGATIVE_INFINITY

  const get = gather<number, StoredUser | undefined>({
    maxInFlight: 2,
    maxItems: 100,
    async run(ids, until) {
      const [columns] = await statements.getUsers(runAs('read', until), { ids: arrayText(ids) })
      const found = new Map<number, StoredUser>()
      if (!columns?.versions) return ids.map(() => undefined)
      const versions = columns.versions()
      for (const [row, user] of usersOf(columns).entries()) found.set(user.id, { user, version: at(versions, row) })
      return ids.map((id) => found.get(id))
    },
  })

  const listAfter = gather<{ after: number; limit: number }, JoinedUsers>({
    maxInFlight: 2,
    maxItems: 16,
    maxWeight: 2000,
    weigh: ({ limit }) => limit,
    async run(pages, until) {
      const after = arrayText(pages.map((page) => page.after))
      const limit = arrayText(pages.map((page) => page.limit))
      return await statements.listPages(runAs('read', until), { after, limit })
    },
  })

  /** In one statement, or in two where one of several rows meets a conflict that was not expected. */
  async function insertRows(run: Run, rows: NewRow[]) {
    const ordered = rows.toSorted((a, b) => (a.username < b.username ? -1 : 1))
    const values = {
      usernames: arrayText(ordered.map((row) => row.username)),
      emails: arrayText(ordered.map((row) => row.email)),
      keys: arrayText(ordered.map((row) => row.key)),
      hashes: arrayText(ordered.map((row) => row.hash)),
    }
    if (rows.length > 1 && performance.now() > conflictsUntil) {
      try {
        return await statements.insertAll(run, values)
      } catch (error) {
        if (!isUniqueViolation(error)) throw error
        conflictsUntil = performance.now() + CONFLICTS_EXPECTED_MS
      }
    }
    return await statements.insertOrSkip(run, values)
  }

  /** Each row is answered after the commit; with undefined if another user has one of its keys. */
  const insert = gather<NewRow, { id: number; createdAt: string } | undefined>({
    maxInFlight: 2,
    maxItems: 200,
    keysOf({ username, email, key }) {
      const keys = [`u${folded(username)}`, `e${folded(email)}`]
      return key === null ? keys : [...keys, `k${key}`]
    },
    isOneItemsFault: (error) => isConstraintViolation(error) || isHeldRow(error),
    async run(rows, until) {
      const inserted = await insertRows(runAs('write', until), rows)
      const answers = new Map(inserted.map((row) => [row.username, row]))
      return rows.map(({ username }) => answers.get(username))
    },
  })

  /** Why a change met no row. */
  async function missed(id: number, versions: Versions, until: number): Promise<Missed> {
    return versions && (await get(id, until)) ? { outcome: 'stale' } : { outcome: 'missing' }
  }

  const rivalsOf = (
    { id, username, email, key }: { id: number; username: string | null; email: string | null; key: string | null },
    until: number,
  ) => statements.findRivals(runAs('read', until), { id, username, email, key })

  return {
    get,

    /** At most `limit` users with ids above `after`, by id, and the cursor of those that follow. */
    async list({ username, email, limit, after }: ListOptions, until: number) {
      const run = runAs('read', until)
      if (username !== undefined || email !== undefined) {
        const found =
          username !== undefined
            ? await statements.findByUsername(run, { username, email: email ?? null })
            : await statements.findByEmail(run, { email: email ?? null })
        return { users: found.filter(({ id }) => id > after), next: null }
      }
      const found = usersOf(await listAfter({ after, limit: limit + 1 }, until))
      const more = found.length > limit
      if (more) found.pop()
      const last = found.at(-1)
      return { users: found, next: more && last ? encodeCursor(last.id) : null }
    },

    /**
     * All users with ids above `after`, by id, as lines of JSON, some at a time. Each time is a statement of its own: no
     * transaction stays open however long the caller takes. While there are other requests, it rests most of the time.
     */
    async *lines(after: number): AsyncGenerator<string, void, void> {
      for (let place: number | null = after; place !== null; ) {
        const start = performance.now()
        const run = runAs('stream', start + db.deadlineMs)
        const [page] = await statements.listLines(run, { after: place, limit: STREAM_BATCH })
        const tookMs = performance.now() - start
        if (page?.lines) yield page.lines
        place = page?.last ?? null
        if (db.busy()) await sleep(Math.min(STREAM_REST * tookMs, STREAM_REST_MAX_MS))
      }
    },

    /**
     * Creates a user. With a `key` that created one before, from the same values, it answers as it did then
     * ('created'); from other values 'key-reused'. The key is remembered for as long as the user exists.
     */
    async create(
      user: NewUser,
      key: string | undefined,
      until: number,
    ): Promise<({ outcome: 'created' } & StoredUser) | Conflict | { outcome: 'key-reused' }> {
      const hash =
        key === undefined
          ? null
          : createHash('sha256')
              .update(JSON.stringify([user.username, user.email]))
              .digest('base64url')
      const row = { ...user, key: key ?? null, hash }
      for (let attempt = 0; attempt < INSERT_ATTEMPTS; attempt++) {
        const inserted = await insert(row, until)
        if (inserted) return { outcome: 'created', ...asCreated(inserted.id, user, inserted.createdAt) }
        const rivals = await rivalsOf({ ...row, id: NO_ID }, until)
        const before = rivals.find(({ sameKey }) => sameKey)
        if (before?.hash === hash) return { outcome: 'created', ...asCreated(before.id, user, before.createdAt) }
        if (before) return { outcome: 'key-reused' }
        const fields = FIELDS.filter((field) => rivals.some((rival) => rival[field]))
        if (fields.length > 0) return { outcome: 'conflict', fields }
      }
      throw new DatabaseUnavailable('another user came and went at each attempt', 'refused')
    },

    /** Sets what `patch` names, if the user's version is one of `versions`. */
    async update(
      id: number,
      { username = null, email = null }: { [F in Field]?: string | null | undefined },
      versions: Versions,
      until: number,
    ): Promise<({ outcome: 'updated' } & StoredUser) | Conflict | Missed> {
      try {
        const values = { id, username, email, versions: versionsText(versions) }
        const [row] = await runExclusive(id, () => statements.updateUser(runAs('write', until), values))
        return row ? { outcome: 'updated', ...toStored(row) } : await missed(id, versions, until)
      } catch (error) {
        if (!isUniqueViolation(error)) throw error
        const rivals = await rivalsOf({ id, username, email, key: null }, until)
        const fields = FIELDS.filter((field) => rivals.some((rival) => rival[field]))
        if (fields.length > 0) return { outcome: 'conflict', fields }
        throw new DatabaseUnavailable('another user came and went', 'refused')
      }
    },

    /** Deletes the user, if its version is one of `versions`. */
    async remove(id: number, versions: Versions, until: number): Promise<{ outcome: 'removed' } | Missed> {
      const values = { id, versions: versionsText(versions) }
      const [row] = await runExclusive(id, () => statements.removeUser(runAs('write', until), values))
      return row ? { outcome: 'removed' } : missed(id, versions, until)
    },
  }
}
