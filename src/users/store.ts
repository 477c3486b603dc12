import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { and, asc, eq, gt, type SQL, type SQLWrapper, sql } from 'drizzle-orm'
import postgres from 'postgres'
import type { Database } from '../db/client.ts'
import type { Row } from '../db/connection.ts'
import { arrayText, builder, prepare, rfc3339 } from '../db/statement.ts'
import { encodeCursor } from './cursor.ts'
import { createInsertQueue } from './insert-queue.ts'
import type { NewUser, User, UserPatch } from './schemas.ts'
import { folded, users } from './table.ts'

/** A user and the version that its entity tag names: 1 at first, one more after each change. */
export type StoredUser = { user: User; version: number }
export type Field = 'username' | 'email'
export type Conflict = { outcome: 'conflict'; fields: Field[] }
/** Versions that a change may start from; undefined for any. */
export type Versions = readonly number[] | undefined
type Missed = { outcome: 'missing' } | { outcome: 'stale' }

export type UserStore = ReturnType<typeof createUserStore>

const { placeholder } = sql
const columns = {
  id: users.id,
  username: users.username,
  email: users.email,
  version: users.version,
  createdAt: users.createdAt,
  updatedAt: users.updatedAt,
}
const ofVersion = sql`(${placeholder('versions')}::int[] is null or ${users.version} = any(${placeholder('versions')}::int[]))`
const target = and(eq(users.id, placeholder('id')), ofVersion)

/** Stands between the values of a column: neither a username nor an email can hold it. */
const SEPARATOR = '\u001f'

/**
 * A page as one row that has each column's values in one text, which costs PostgreSQL as much and us half of what
 * a row for each user costs. Most users were never updated: then the time of that is left out, too.
 */
function page(filter?: SQL) {
  const rows = builder
    .select(columns)
    .from(users)
    .where(and(gt(users.id, placeholder('after')), filter))
    .orderBy(asc(users.id))
    .limit(placeholder('limit'))
    .as('page')
  const joined = (value: SQLWrapper) => sql`string_agg(${value}, ${sql.raw(`U&'\\001f'`)})`
  return builder
    .select({
      ids: joined(sql`${rows.id}::text`),
      usernames: joined(rows.username),
      emails: joined(rows.email),
      createdAt: joined(sql`${rows.createdAt}::text`),
      updatedAt: joined(sql`coalesce(nullif(${rows.updatedAt}, ${rows.createdAt})::text, '')`),
    })
    .from(rows)
}

/** A time as `rfc3339` writes it, for the one place where PostgreSQL makes the JSON. */
const jsonTime = (column: SQLWrapper) => sql`to_char(${column}, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`

/**
 * The users after one as lines of JSON, and the last id: PostgreSQL makes the text, so that a stream of a million
 * users leaves next to nothing behind in our memory.
 */
function jsonLines() {
  const rows = builder
    .select({
      id: users.id,
      username: users.username,
      email: users.email,
      createdAt: jsonTime(users.createdAt).as('createdAt'),
      updatedAt: jsonTime(users.updatedAt).as('updatedAt'),
    })
    .from(users)
    .where(gt(users.id, placeholder('after')))
    .orderBy(asc(users.id))
    .limit(placeholder('limit'))
    .as('page')
  return builder
    .select({
      lines: sql`string_agg(row_to_json(page)::text, U&'\\000a') || U&'\\000a'`,
      last: sql`max(${rows.id})`,
    })
    .from(rows)
}

/** The users of a page's one row. */
function toUsers([row]: Row[]): User[] {
  const [ids, usernames = [], emails = [], created = [], updated = []] = (row ?? []).map((column) =>
    typeof column === 'string' ? column.split(SEPARATOR) : [],
  )
  return (ids ?? []).map((id, i) => {
    const createdAt = rfc3339(created[i] as string)
    return {
      id: Number(id),
      username: usernames[i] as string,
      email: emails[i] as string,
      createdAt,
      updatedAt: updated[i] ? rfc3339(updated[i]) : createdAt,
    }
  })
}

const is = (field: Field) => sql`${folded(users[field])} = ${folded(placeholder(field))}`

const statements = {
  get: prepare<'id'>(
    builder
      .select(columns)
      .from(users)
      .where(eq(users.id, placeholder('id'))),
  ),
  list: prepare<'after' | 'limit'>(page()),
  listByUsername: prepare<'after' | 'limit' | 'username'>(page(is('username'))),
  listByEmail: prepare<'after' | 'limit' | 'email'>(page(is('email'))),
  listByBoth: prepare<'after' | 'limit' | Field>(page(and(is('username'), is('email')))),
  lines: prepare<'after' | 'limit'>(jsonLines()),
  update: prepare<'id' | 'versions' | Field>(
    builder
      .update(users)
      .set({
        username: sql`coalesce(${placeholder('username')}, ${users.username})`,
        email: sql`coalesce(${placeholder('email')}, ${users.email})`,
        version: sql`${users.version} + 1`,
        updatedAt: sql`now()`,
      })
      .where(target)
      .returning(columns),
  ),
  remove: prepare<'id' | 'versions'>(builder.delete(users).where(target).returning({ id: users.id })),
  /** Who stands in the way of a new user, and what the Idempotency-Key was used for. */
  rivals: prepare<'key' | Field>(
    builder
      .select({
        username: is('username'),
        email: is('email'),
        key: sql`coalesce(${users.idempotencyKey} = ${placeholder('key')}, false)`,
        hash: users.idempotencyHash,
        id: users.id,
        createdAt: users.createdAt,
      })
      .from(users)
      .where(sql`${is('username')} or ${is('email')} or ${users.idempotencyKey} = ${placeholder('key')}`),
  ),
}

const toStored = ([id, username, email, version, createdAt, updatedAt]: Row): StoredUser => ({
  user: {
    id: Number(id),
    username: username as string,
    email: email as string,
    createdAt: rfc3339(createdAt as string),
    updatedAt: rfc3339(updatedAt as string),
  },
  version: version as number,
})

/** What PostgreSQL would call a new user's row: it has just been created, so its first answer can be given again. */
const asCreated = (id: number, { username, email }: NewUser, createdAt: string): StoredUser => ({
  user: { id, username, email, createdAt, updatedAt: createdAt },
  version: 1,
})

/** Users a statement of a stream reads. */
const STREAM_BATCH = 100
/** How long a stream rests while others wait, as a multiple of the time that its last statement took. */
const STREAM_REST = 3

/** How often an insert is tried that met a rival who was gone when we looked. */
const INSERT_ATTEMPTS = 3

const versionsText = (versions: Versions) => (versions ? arrayText(versions) : null)

/**
 * The users in PostgreSQL: one statement, one round trip for each call that succeeds.
 * Every function throws DatabaseUnavailable when the database cannot be asked.
 */
export function createUserStore(db: Database) {
  const inserts = createInsertQueue(db)

  async function get(id: number): Promise<StoredUser | undefined> {
    const [row] = await statements.get(db.read, { id })
    return row && toStored(row)
  }

  /** Why a change met no row. */
  async function missed(id: number, versions: Versions): Promise<Missed> {
    return versions && (await get(id)) ? { outcome: 'stale' } : { outcome: 'missing' }
  }

  return {
    get,

    /** At most `limit` users with ids above `after`, by id, and the cursor of those that follow. */
    async list(query: { limit: number; after: number; username?: string | undefined; email?: string | undefined }) {
      const { limit, after, username, email } = query
      const place = { after, limit: limit + 1 }
      const rows = await (username === undefined
        ? email === undefined
          ? statements.list(db.read, place)
          : statements.listByEmail(db.read, { ...place, email })
        : email === undefined
          ? statements.listByUsername(db.read, { ...place, username })
          : statements.listByBoth(db.read, { ...place, username, email }))
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
          const [text, last] = row ?? []
          if (typeof text !== 'string') return
          yield text
          place = last
          if (db.busy()) await sleep(STREAM_REST * (performance.now() - start))
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
        const rivals = await statements.rivals(db.read, { ...user, key: key ?? null })
        const before = rivals.find(([, , sameKey]) => sameKey)
        if (before) {
          const [, , , sameHash, id, createdAt] = before
          if (sameHash !== hash) return { outcome: 'key-reused' }
          return { outcome: 'created', ...asCreated(Number(id), user, rfc3339(createdAt as string)) }
        }
        const fields: Field[] = []
        if (rivals.some(([username]) => username)) fields.push('username')
        if (rivals.some(([, email]) => email)) fields.push('email')
        if (fields.length > 0) return { outcome: 'conflict', fields }
      }
      return { outcome: 'conflict', fields: ['username', 'email'] }
    },

    /** Sets what `patch` names, if the user's version is one of `versions`. */
    async update(
      id: number,
      patch: UserPatch,
      versions: Versions,
    ): Promise<({ outcome: 'updated' } & StoredUser) | Conflict | Missed> {
      const { username = null, email = null } = patch
      try {
        const [row] = await statements.update(db.write, { id, username, email, versions: versionsText(versions) })
        return row ? { outcome: 'updated', ...toStored(row) } : await missed(id, versions)
      } catch (error) {
        if (!(error instanceof postgres.PostgresError && error.code === '23505')) throw error
        return { outcome: 'conflict', fields: [error.constraint_name === 'users_email_key' ? 'email' : 'username'] }
      }
    },

    /** Deletes the user, if its version is one of `versions`. */
    async remove(id: number, versions: Versions): Promise<{ outcome: 'removed' } | Missed> {
      const [row] = await statements.remove(db.write, { id, versions: versionsText(versions) })
      return row ? { outcome: 'removed' } : missed(id, versions)
    },
  }
}
