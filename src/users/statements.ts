import { and, asc, eq, gt, or, type SQL, type SQLWrapper, sql } from 'drizzle-orm'
import { builder, prepare, type Row, rfc3339 } from '../db/statement.ts'
import type { User } from './schemas.ts'
import { folded, users } from './table.ts'

/** A user and the version that its entity tag names: 1 at first, one more after each change. */
export type StoredUser = { user: User; version: number }
/** What no two users share. */
export const FIELDS = ['username', 'email'] as const
export type Field = (typeof FIELDS)[number]

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

const is = (field: Field) => sql`${folded(users[field])} = ${folded(placeholder(field))}`

/** Inserts users; they must come by username, so that two statements that meet take their keys in one order. */
const insert = (onConflict = sql.empty()) =>
  prepare<'usernames' | 'emails' | 'keys' | 'hashes'>(
    () => sql`
    insert into ${users} (username, email, idempotency_key, idempotency_hash)
    select * from unnest(${placeholder('usernames')}::text[], ${placeholder('emails')}::text[], ${placeholder('keys')}::text[], ${placeholder('hashes')}::text[])
    ${onConflict}
    returning ${users.id}, ${users.username}, ${users.createdAt}`,
  )

/** Every statement on users; each is prepared once, by name, and lists its columns. */
export const statements = {
  get: prepare<'id'>(() =>
    builder
      .select(columns)
      .from(users)
      .where(eq(users.id, placeholder('id'))),
  ),
  getMany: prepare<'ids'>(() =>
    builder
      .select(columns)
      .from(users)
      .where(sql`${users.id} = any(${placeholder('ids')}::bigint[])`),
  ),
  list: prepare<'after' | 'limit'>(page),
  /** By username and, where it is not null, by email as well. */
  listByUsername: prepare<'after' | 'limit' | Field>(() =>
    page(and(is('username'), or(sql`${placeholder('email')}::text is null`, is('email')))),
  ),
  listByEmail: prepare<'after' | 'limit' | 'email'>(() => page(is('email'))),
  lines: prepare<'after' | 'limit'>(jsonLines),
  /** Many users at once; one that conflicts fails them all (23505). */
  insert: insert(),
  /** Many users at once, without those that conflict: half as much work again for PostgreSQL, which looks for each twice. */
  insertOrSkip: insert(sql`on conflict do nothing`),
  update: prepare<'id' | 'versions' | Field>(() =>
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
  remove: prepare<'id' | 'versions'>(() => builder.delete(users).where(target).returning({ id: users.id })),
  /** Who stands in the way of a new user, and what the Idempotency-Key was used for. */
  rivals: prepare<'key' | Field>(() =>
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

/** A row of `rivals`: whether it has the same username, email and key, and what an answer to the same key needs. */
export const toRival = ([username, email, key, hash, id, createdAt]: Row) => ({
  username: username as boolean,
  email: email as boolean,
  sameKey: key as boolean,
  hash: hash as string | null,
  id: Number(id),
  createdAt: rfc3339(createdAt as string),
})

/** The user of a row of `columns`. */
export const toStored = ([id, username, email, version, createdAt, updatedAt]: Row): StoredUser => ({
  user: {
    id: Number(id),
    username: username as string,
    email: email as string,
    createdAt: rfc3339(createdAt as string),
    updatedAt: rfc3339(updatedAt as string),
  },
  version: version as number,
})

/** The users of a page's one row. */
export function toUsers([row]: Row[]): User[] {
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
