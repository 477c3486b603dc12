import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { freePort, startPostgres } from '../../dev/postgres.ts'
import { addressOf, createTestDatabase, type TestDatabase } from '../../test/database.ts'
import { main, ROOT } from '../../test/process.ts'
import { startProxy } from '../../test/proxy.ts'
import { MigrationError, migrate } from './migrate.ts'

let database: TestDatabase
const folders: string[] = []
beforeEach(async () => {
  database = await createTestDatabase({ empty: true })
})
afterEach(async () => {
  await database.drop()
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true })
})

const run = (folder = `${ROOT}drizzle`, api?: { user: string; password: string }, waitMs = 0) =>
  migrate({ address: addressOf(database.url), folder, api, waitMs })

/** The migrations of `base` and one more, generated at `when`. */
function withMigration(sql: string, when = Date.now(), base = `${ROOT}drizzle`): string {
  const folder = mkdtempSync(join(tmpdir(), 'migrations-'))
  folders.push(folder)
  cpSync(base, folder, { recursive: true })
  const journalFile = join(folder, 'meta/_journal.json')
  const journal = JSON.parse(readFileSync(journalFile, 'utf8'))
  const tag = `${when}_next`
  journal.entries.push({ idx: journal.entries.length, version: '7', when, tag, breakpoints: true })
  writeFileSync(journalFile, JSON.stringify(journal))
  writeFileSync(join(folder, `${tag}.sql`), sql)
  return folder
}

const columns = async () =>
  (await database.sql`select column_name from information_schema.columns where table_name = 'users'`).map(
    ({ column_name }) => column_name,
  )

test('applies what is missing, and nothing the second time', async () => {
  expect(await run()).toBeGreaterThan(0)
  expect(await columns()).toContain('idempotency_key')
  expect(await run()).toBe(0)
  expect(await run(withMigration('alter table users add column note text'))).toBe(1)
  expect(await columns()).toContain('note')
})

test('is safe when eight processes start at once', async () => {
  const processes = Array.from({ length: 8 }, () => main(['migrate'], { DATABASE_URL: database.url }))
  expect(await Promise.all(processes.map(({ exited }) => exited))).toEqual(Array(8).fill(0))
  const said = processes.map(({ stdout }) => stdout())
  expect(said.filter((text) => text.startsWith('Migrations applied:'))).toHaveLength(1)
  expect(said.filter((text) => text === 'The database is up to date.\n')).toHaveLength(7)
})

test('refuses a database that is newer than the code', async () => {
  await run(withMigration('alter table users add column note text'))
  await expect(run()).rejects.toThrow(/newer than the code/)
  const old = main(['migrate'], { DATABASE_URL: database.url })
  expect(await old.exited).toBe(1)
  expect(old.stderr()).toMatch(/^users-api: The database has migrations .*\n$/)
})

test('keeps nothing of a migration that fails, and says why', async () => {
  const broken = withMigration(
    'alter table users add column note text;--> statement-breakpoint\nalter table users add column note text',
  )
  await expect(run(broken)).rejects.toThrow(MigrationError)
  await expect(run(broken)).rejects.toThrow(/nothing of it was kept: column "note" .* already exists/)
  expect(await columns()).toEqual([])
  expect(await run()).toBeGreaterThan(0)
})

test('refuses a migration that is older than what the database has had, for it would be left out', async () => {
  const now = Date.now()
  const first = withMigration('create table first (x int)', now)
  await run(first)
  const late = withMigration('create table late (x int)', now - 1000, first)
  await expect(run(late)).rejects.toThrow(/generate it anew/)
  expect(await run(withMigration('create table later (x int)', now + 1000, first))).toBe(1)
})

test('waits its turn for a table that a long transaction holds, and lets others at it meanwhile', async () => {
  await run()
  const next = withMigration('alter table users add column note text')
  const migrating = await database.sql.begin(async (long) => {
    await long`select count(*) from users`
    const result = run(next, undefined, 60_000)
    await database.sql`set lock_timeout = '5s'`
    for (const until = performance.now() + 3000; performance.now() < until; ) {
      await database.sql`select count(*) from users`
    }
    return { result }
  })
  expect(await migrating.result).toBe(1)
  expect(await columns()).toContain('note')
  await database.sql.begin(async (long) => {
    await long`select count(*) from users`
    await expect(run(withMigration('alter table users add column other text', undefined, next))).rejects.toThrow(
      /long transaction/,
    )
  })
})

describe('a database that is not up yet', () => {
  test('is waited for, and migrated when it comes', async () => {
    const { port: target, ...address } = addressOf(database.url)
    const port = await freePort()
    const migrating = migrate({
      address: { ...address, port },
      folder: `${ROOT}drizzle`,
      api: undefined,
      waitMs: 600_000,
    })
    await sleep(300)
    const network = await startProxy(target, port)
    expect(await migrating).toBeGreaterThan(0)
    network.close()
  })

  test('is given up after the wait', async () => {
    const start = performance.now()
    const address = { ...addressOf(database.url), port: await freePort() }
    await expect(migrate({ address, folder: `${ROOT}drizzle`, api: undefined, waitMs: 600 })).rejects.toThrow(
      MigrationError,
    )
    expect(performance.now() - start).toBeGreaterThan(600)
  })

  test('is one sentence and exit code 1 in the end', async () => {
    const waiting = main(['migrate'], { DATABASE_URL: 'postgres://u:p@127.0.0.1:1/db', MIGRATE_WAIT_MS: '1' })
    expect(await waiting.exited).toBe(1)
    expect(waiting.stderr()).toMatch(/^users-api: The database at 127\.0\.0\.1:1 cannot be used: .*ECONNREFUSED.*\n$/)
  })
})

test('explains a password that the database refuses', async () => {
  const url = new URL(database.url)
  url.password = 'wrong'
  const refused = main(['migrate'], { DATABASE_URL: url.href })
  expect(await refused.exited).toBe(1)
  expect(refused.stderr()).toMatch(/refuses the password of role "postgres".*README/)
})

describe("the API's role", () => {
  const user = `users.api "it's" ${process.pid}`
  const as = (password: string) =>
    postgres(database.url, { username: user, password, max: 1, onnotice: () => {} } as postgres.Options<never>)
  afterEach(async () => {
    const role = database.sql.unsafe(`"${user.replaceAll('"', '""')}"`)
    await database.sql`drop owned by ${role}`
    await database.sql`drop role ${role}`
  })

  test('may use the rows and change nothing else', async () => {
    await run(undefined, { user, password: 'pass\'w"ord' })
    const sql = as('pass\'w"ord')
    await sql`insert into users (username, email) values ('a', 'a@example.com')`
    await sql`update users set version = 2`
    expect(await sql`select username, version from users`).toEqual([{ username: 'a', version: 2 }])
    await sql`delete from users`
    for (const forbidden of [
      'drop table users',
      'alter table users add column x text',
      'truncate users',
      'create table t (x int)',
      'select * from drizzle.__drizzle_migrations',
      'create role other',
      'create database other',
    ]) {
      await expect(sql.unsafe(forbidden), forbidden).rejects.toMatchObject({ code: '42501' })
    }
    await sql.end()
  })

  test('gets a changed password, and tables that came later', async () => {
    await run(undefined, { user, password: 'first' })
    await run(withMigration('create table later (x int)'), { user, password: 'second' })
    await expect(as('first')`select 1`).rejects.toMatchObject({ code: '28P01' })
    const sql = as('second')
    expect(await sql`select * from later`).toEqual([])
    await sql.end()
  })

  test('keeps its password, and the connections that it has, when the same is given again', async () => {
    // PostgreSQL itself would take the ligature for two letters, and postgres.js not get in.
    const password = 'ﬁne pässword'
    await run(undefined, { user, password })
    const before = as(password)
    await before`select 1`
    await run(undefined, { user, password })
    const after = as(password)
    expect(await after`select 1 as n`).toEqual([{ n: 1 }])
    expect(await before`select 1 as n`).toEqual([{ n: 1 }])
    await Promise.all([before.end(), after.end()])
  })
})

test("the password of the API's role is in no log, whatever PostgreSQL logs", async () => {
  const server = await startPostgres({ settings: { fsync: 'off', log_statement: 'all' } })
  onTestFinished(server.stop)
  let log = ''
  server.process.stderr?.on('data', (text) => {
    log += text
  })
  const api = { user: 'api', password: 'topsecret' }
  await migrate({ address: addressOf(server.url), folder: `${ROOT}drizzle`, api, waitMs: 0 })
  await expect.poll(() => log).toContain('grant select')
  expect(log).toContain('alter role "api" login password \'SCRAM-SHA-256$')
  expect(log).not.toContain(api.password)
})
