import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Database } from '../db/client.ts'
import { arrayText, isUniqueViolation, type Row } from '../db/statement.ts'
import { DatabaseUnavailable } from '../db/unavailable.ts'
import { encodeCursor } from './cursor.ts'
import { createGetQueue } from './get-queue.ts'
import { createInsertQueue } from './insert-queue.ts'
import { createMutex } from './mutex.ts'
import type { NewUser, UserPatch } from './schemas.ts'
import { FIELDS, type Field, type StoredUser, statements, toRival, toStored, toUsers } from './statements.ts'

export type Conflict = { outcome: 'conflict'; fields: Field[] }
/** Versions that a change may start from; undefined for any. */
export type Versions = readonly number[] | undefined
type Missed = { outcome: 'missing' } | { outcome: 'stale' }

export type UserStore = ReturnType<typeof createUserStore>

type ListOptions = { limit: number; after: number; username?: string | undefined; email?: string | undefined }

/** What PostgreSQL would call a new user's row: it has just been created, so its first answer can be given again. */
const asCreated = (id: number, { username, email }: NewUser, createdAt: string): StoredUser => ({
  user: { id, username, email, createdAt, updatedAt: createdAt },
  version: 1,
})

/** Users a statement of a stream reads. */
const STREAM_BATCH = 100
/** How long a stream rests while others wait, as a multiple of the time that its last statement took. */
const STREAM_REST = 9
/** Short of any time-out of its client. */
const STREAM_REST_MAX_MS = 1000

/** How often an insert is tried that met a rival who was gone when we looked. */
const INSERT_ATTEMPTS = 3

const versionsText = (versions: Versions) => (versions ? arrayText(versions) : null)

/**
 * The users in PostgreSQL: one statement, one round trip for each call that succeeds.
 * Every function throws DatabaseUnavailable when the database cannot be asked.
 */
export function createUserStore(db: Database) {
  const inserts = createInsertQueue(db)

  const { get } = createGetQueue(db)
  const runExclusive = createMutex()

  /** Why a change met no row. */
  async function missed(id: number, versions: Versions): Promise<Missed> {
    return versions && (await get(id)) ? { outcome: 'stale' } : { outcome: 'missing' }
  }

  return {
    get,

    /** At most `limit` users with ids above `after`, by id, and the cursor of those that follow. */
    async list({ username, email, limit, after }: ListOptions) {
      const place = { after, limit: limit + 1 }
      let rows: Row[]
      if (username !== undefined) {
        rows = await statements.listByUsername(db.read, { ...place, username, email: email ?? null })
      } else if (email !== undefined) rows = await statements.listByEmail(db.read, { ...place, email })
      else rows = await statements.list(db.read, place)
      const found = toUsers(rows)
      const more = found.length > limit
      if (more) found.pop()
      const last = found.at(-1)
      return { users: found, next: more && last ? encodeCursor(last.id) : null }
    },

    /**
     * All users with ids above `after`, by id, as lines of JSON, some at a time, each time a statement of its own: no
     * transaction stays open however long the caller takes. It gives way to other requests: while there are any, it
     * rests for most of the time. Its connection is closed when the caller stops.
     */
    async *lines(after: number): AsyncGenerator<string, void, void> {
      const session = db.session()
      try {
        for (let place: unknown = after; ; ) {
          const start = performance.now()
          const [row] = await statements.lines(session.read, { after: place, limit: STREAM_BATCH })
          const tookMs = performance.now() - start
          const [text, last] = row ?? []
          if (typeof text !== 'string') return
          yield text
          place = last
          if (db.busy()) await sleep(Math.min(STREAM_REST * tookMs, STREAM_REST_MAX_MS))
        }
      } finally {
        await session.close()
      }
    },

    /**
     * Creates a user. With a `key` that created one before, from the same values, it answers as it did then
     * ('created'); from other values 'key-reused'. The key is remembered for as long as the user exists.
     */
    async create(
      user: NewUser,
      key: string | undefined,
    ): Promise<({ outcome: 'created' } & StoredUser) | Conflict | { outcome: 'key-reused' }> {
      const hash =
        key === undefined
          ? null
          : createHash('sha256')
              .update(JSON.stringify([user.username, user.email]))
              .digest('base64url')
      for (let attempt = 0; attempt < INSERT_ATTEMPTS; attempt++) {
        const inserted = await inserts.add({ ...user, key: key ?? null, hash })
        if (inserted) return { outcome: 'created', ...asCreated(inserted.id, user, inserted.createdAt) }
        const rivals = (await statements.rivals(db.read, { ...user, key: key ?? null })).map(toRival)
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
      patch: UserPatch,
      versions: Versions,
    ): Promise<({ outcome: 'updated' } & StoredUser) | Conflict | Missed> {
      const { username = null, email = null } = patch
      try {
        const values = { id, username, email, versions: versionsText(versions) }
        const [row] = await runExclusive(id, (since) => statements.update(db.write, values, since))
        return row ? { outcome: 'updated', ...toStored(row) } : await missed(id, versions)
      } catch (error) {
        if (!isUniqueViolation(error)) throw error
        return { outcome: 'conflict', fields: [error.constraint_name === 'users_email_key' ? 'email' : 'username'] }
      }
    },

    /** Deletes the user, if its version is one of `versions`. */
    async remove(id: number, versions: Versions): Promise<{ outcome: 'removed' } | Missed> {
      const values = { id, versions: versionsText(versions) }
      const [row] = await runExclusive(id, (since) => statements.remove(db.write, values, since))
      return row ? { outcome: 'removed' } : missed(id, versions)
    },
  }
}
