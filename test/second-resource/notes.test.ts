import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { AppOptions } from '../../src/app.ts'
import { migrate } from '../../src/db/migrate.ts'
import type { Pool } from '../../src/db/pool.ts'
import { baseApp, finishApp } from '../../src/http/base.ts'
import { openApi } from '../../src/http/openapi.ts'
import { userRoutes } from '../../src/users/routes.ts'
import { describeUsers } from '../../src/users/schemas.ts'
import { type Answer, type Api, startApi } from '../api.ts'
import { addressOf, createTestDatabase, type TestDatabase } from '../database.ts'
import { ROOT } from '../process.ts'
import { testResource } from '../resource.ts'
import { noteRoutes } from './notes/routes.ts'
import { describeNotes } from './notes/schemas.ts'
import { createNoteStore } from './notes/store.ts'

/** `src/app.ts` with the second resource. */
const createNotesApp = async (options: AppOptions, db: Pool) =>
  finishApp(
    (await baseApp(options))
      .route('/', openApi({ ...options, resources: [describeUsers, describeNotes] }))
      .route('/users', userRoutes(options.users, options))
      .route('/notes', noteRoutes(createNoteStore(db), options)),
  )

/** A folder with `drizzle`, and in it the migration that `npm run db:generate` makes of the new table. */
function generateMigration(): string {
  const folder = mkdtempSync(join(tmpdir(), 'users-api-notes-'))
  cpSync(join(ROOT, 'drizzle'), join(folder, 'drizzle'), { recursive: true })
  const schema = ['src/users/table.ts', 'test/second-resource/notes/table.ts'].map((file) => join(ROOT, file))
  const config = join(folder, 'drizzle.config.json')
  writeFileSync(config, JSON.stringify({ dialect: 'postgresql', schema, out: './drizzle' }))
  const args = [join(ROOT, 'node_modules/drizzle-kit/bin.cjs'), 'generate', '--config', config]
  const made = spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8' })
  expect(made.status, made.stdout + made.stderr).toBe(0)
  return folder
}

let database: TestDatabase
let api: Api
let userId: number
beforeAll(async () => {
  database = await createTestDatabase({ empty: true })
  const folder = generateMigration()
  const options = {
    address: addressOf(database.url),
    folder: join(folder, 'drizzle'),
    api: undefined,
    MIGRATE_WAIT_MS: 0,
  }
  expect(await migrate(options)).toBe('Migrations applied: 2.')
  rmSync(folder, { recursive: true })
  api = await startApi({ DATABASE_URL: database.url }, {}, createNotesApp)
  userId = (await api.request('POST', '/users', { username: 'owner', email: 'owner@example.com' })).body.id
})
afterAll(async () => {
  await api.close()
  await database.drop()
})

let count = 0
const input = () => {
  count++
  return { userId, text: `note ${count}: "quotes", \\ and \u2028` }
}

testResource({
  api: () => api,
  path: '/notes',
  member: 'notes',
  input,
  change: () => ({ text: input().text }),
  invalid: { body: { userId: 1, text: '' }, pointer: '/text' },
})

test('a note for a user who is not there is 422 with a pointer, and leaves its neighbours alone', async () => {
  const bodies = Array.from({ length: 9 }, (_, i) => ({ ...input(), ...(i === 4 && { userId: 999_999 }) }))
  const answers = await Promise.all(bodies.map((body) => api.request('POST', '/notes', body)))
  expect(answers.map(({ status }) => status)).toEqual(bodies.map((_, i) => (i === 4 ? 422 : 201)))
  expect(answers[4]?.body.errors).toMatchObject([{ pointer: '/userId' }])
  const { id } = (answers[0] as Answer).body
  const changed = await api.request('PATCH', `/notes/${id}`, { userId: 999_999 })
  expect([changed.status, changed.body.errors[0].pointer]).toEqual([422, '/userId'])
})

test('a user who has notes cannot be deleted: 409 says so', async () => {
  const { id } = (await api.request('POST', '/users', { username: 'other', email: 'other@example.com' })).body
  const note = (await api.request('POST', '/notes', { userId: id, text: 'mine' })).body
  const refused = await api.request('DELETE', `/users/${id}`)
  expect([refused.status, refused.body.detail]).toEqual([409, 'The user cannot be deleted: its notes are still there.'])
  expect((await api.request('DELETE', `/notes/${note.id}`)).status).toBe(204)
  expect((await api.request('DELETE', `/users/${id}`)).status).toBe(204)
})
