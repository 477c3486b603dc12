import { asc, eq, gt, type SQL, sql } from 'drizzle-orm'
import { at, joined } from '../../../src/db/columnar.ts'
import { isAtVersion } from '../../../src/db/columns.ts'
import { builder, type Placeholders, prepare } from '../../../src/db/statement.ts'
import type { Note } from './schemas.ts'
import { notes } from './table.ts'

const { id, userId, text, createdAt, updatedAt, version } = notes
const columns = { id, userId, text, createdAt, updatedAt }

const joinedColumns = {
  ids: joined(id).as('ids'),
  userIds: joined(userId).as('user_ids'),
  texts: joined(text).as('texts'),
  created: joined(createdAt).as('created'),
  updated: joined(updatedAt).as('updated'),
}

export const getNotes = prepare(($: Placeholders<'ids'>) =>
  builder
    .select({ ...joinedColumns, versions: joined(version) })
    .from(notes)
    .where(sql`${id} = any(${$('ids')}::bigint[])`),
)

export const listPages = prepare(($: Placeholders<'after' | 'limit'>) => {
  const asked = sql`unnest(${$('after')}::bigint[], ${$('limit')}::int[]) with ordinality as asked (after, "limit", n)`
  const following = builder.select(columns).from(notes).where(gt(id, sql`asked.after`)).orderBy(asc(id))
  const page = builder.select(joinedColumns).from(sql`(${following} limit asked."limit") as notes`).as('page')
  const { ids, userIds, texts, created, updated } = page
  return builder.select({ ids, userIds, texts, created, updated }).from(asked).crossJoinLateral(page).orderBy(sql`n`)
})

/** The notes of one row of joined columns. */
export function notesOf({
  ids,
  userIds,
  texts,
  created,
  updated,
}: Awaited<ReturnType<typeof listPages>>[number]): Note[] {
  if (!(ids && userIds && texts && created && updated)) return []
  const [owners, contents, createdAts, updatedAts] = [userIds(), texts(), created(), updated()]
  return ids().map((id, row) => ({
    id,
    userId: at(owners, row),
    text: at(contents, row),
    createdAt: at(createdAts, row),
    updatedAt: at(updatedAts, row),
  }))
}

const insert = (onConflict: SQL) =>
  prepare(($: Placeholders<'userIds' | 'texts' | 'keys' | 'hashes'>) => {
    const inserted = builder.$with('inserted', { id, key: notes.idempotencyKey, createdAt }).as(sql`
      insert into ${notes} (user_id, text, idempotency_key, idempotency_hash)
      select user_id, text, key, hash from unnest(
        ${$('userIds')}::bigint[], ${$('texts')}::text[], ${$('keys')}::text[], ${$('hashes')}::text[]
      ) with ordinality as given (user_id, text, key, hash, n) order by n
      ${onConflict}
      returning id, idempotency_key, created_at`)
    return builder.with(inserted).select().from(inserted).orderBy(inserted.id)
  })
export const insertAll = insert(sql.empty())
export const insertOrSkip = insert(sql`on conflict do nothing`)

export const updateNote = prepare(($: Placeholders<'id' | 'versions' | 'userId' | 'text'>) =>
  builder
    .update(notes)
    .set({
      userId: sql`coalesce(${$('userId')}, ${userId})`,
      text: sql`coalesce(${$('text')}, ${text})`,
      version: sql`${version} + 1`,
      updatedAt: sql`now()`,
    })
    .where(isAtVersion(notes, $))
    .returning({ ...columns, version }),
)

export const removeNote = prepare(($: Placeholders<'id' | 'versions'>) =>
  builder.delete(notes).where(isAtVersion(notes, $)).returning({ id, version }),
)

export const findByKey = prepare(($: Placeholders<'key'>) =>
  builder
    .select({ id, createdAt, hash: notes.idempotencyHash })
    .from(notes)
    .where(eq(notes.idempotencyKey, $('key'))),
)
