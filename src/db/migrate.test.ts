import { once } from 'node:events'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Transform } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { readMigrationFiles } from 'drizzle-orm/migrator'
import { drizzle } from 'drizzle-orm/postgres-js'
import { migrate as migrateByDrizzle } from 'drizzle-orm/postgres-js/migrator'
import postgres from 'postgres'
import { afterEach, beforeEach, describe, expect, inject, onTestFinished, test } from 'vitest'
import { freePort, startPostgres } from '../../dev/postgres.ts'
import { addressOf, createTestDatabase, type TestDatabase } from '../../test/database.ts'
import { main, ROOT } from '../../test/process.ts'
import { startProxy } from '../../test/proxy.ts'
import { serve } from '../../test/service.ts'
import { migrate } from './migrate.ts'

let database: TestDatabase
const folders: string[] = []
beforeEach(async () => {
  database = await createTestDatabase({ empty: true })
})
afterEach(async () => {
  await database.drop()
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true })
})

const DEADLINE_MS = 4000

const UP_TO_DATE = 'The database is up to date.'
const applied = (count: number) => `Migrations applied: ${count}.`

const run = (folder = `${ROOT}drizzle`, api?: { user: string; password: string }, waitMs = 0) =>
  migrate({
    address: addressOf(database.url),
    folder,
    api: api && { ...api, deadlineMs: DEADLINE_MS },
    MIGRATE_WAIT_MS: waitMs,
  })

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
  expect(await run()).toMatch(/^Migrations applied: \d+\.$/)
  expect(await columns()).toContain('idempotency_key')
  expect(await run()).toBe(UP_TO_DATE)
  expect(await run(withMigration('alter table users add column note text'))).toBe(applied(1))
  expect(await columns()).toContain('note')
})

test('a process that pauses amid a migration, or whose machine is gone, holds no lock for long', async () => {
  await run(
    withMigration("create table seen as select current_setting('idle_in_transaction_session_timeout') as bound"),
  )
  expect(await database.sql`select bound from seen`).toEqual([{ bound: '10s' }])
})

test('is safe when eight processes start at once', async () => {
  const processes = Array.from({ length: 8 }, () => main(['migrate'], { DATABASE_URL: database.url }))
  expect(await Promise.all(processes.map(({ exited }) => exited))).toEqual(Array(8).fill(0))
  const said = processes.map(({ stdout }) => stdout())
  expect(said.filter((text) => text.startsWith('Migrations applied:'))).toHaveLength(1)
  expect(said.filter((text) => text === 'The database is up to date.\n')).toHaveLength(7)
})

test('leaves a database that is newer than the release as it is, says so and succeeds', async () => {
  await run(withMigration('alter table users add column note text'))
  const state = async () => [
    await columns(),
    await database.sql`select * from drizzle.__drizzle_migrations order by id`,
  ]
  const before = await state()
  expect(await run()).toMatch(/^The database is newer/)
  const old = main(['migrate'], { DATABASE_URL: database.url })
  expect(await old.exited).toBe(0)
  expect(old.stdout()).toBe('The database is newer than this release: its tables stay as they are.\n')
  expect(await state()).toEqual(before)
})

test('a release with a migration, and then the one before again: no request fails', async () => {
  await run()
  const start = () => serve({ DATABASE_URL: database.url, DRAIN_DELAY_MS: '500' })
  let serving = await start()
  const replace = async () => {
    const old = serving
    serving = await start()
    expect((await fetch(`${serving.url}/readyz`)).status).toBe(200)
    await old.stop()
  }

  let loaded = true
  const statuses: number[] = []
  const headers = { 'content-type': 'application/json' }
  const load = async (client: number) => {
    for (let i = 0; loaded; i++) {
      const body = JSON.stringify({ username: `user ${client} ${i}`, email: `user${client}.${i}@example.com` })
      const created = await fetch(`${serving.url}/users`, { method: 'POST', headers, body })
      const listed = await fetch(`${serving.url}/users?limit=10`)
      await Promise.all([created.text(), listed.text()])
      statuses.push(created.status, listed.status)
    }
  }
  const clients = [0, 1, 2, 3].map(load)
  await expect.poll(() => statuses.length).toBeGreaterThan(20)
  expect(await run(withMigration('alter table users add column note text'))).toBe(applied(1))
  await replace()
  const old = main(['migrate'], { DATABASE_URL: database.url })
  expect(await old.exited).toBe(0)
  await replace()
  const before = statuses.length
  await expect.poll(() => statuses.length).toBeGreaterThan(before + 20)
  loaded = false
  await Promise.all(clients)
  expect(new Set(statuses)).toEqual(new Set([201, 200]))
  await serving.stop()
})

test('keeps nothing of a migration that fails, and says why', async () => {
  const broken = withMigration(
    'alter table users add column note text;--> statement-breakpoint\nalter table users add column note text',
  )
  await expect(run(broken)).rejects.toThrow(/nothing of it was kept: column "note" .* already exists/)
  expect(await columns()).toEqual([])
  expect(await run()).toMatch(/^Migrations applied: \d+\.$/)
})

test("keeps nothing when the API's role cannot be made", async () => {
  const reserved = { user: 'pg_api', password: 'secret' }
  await expect(run(undefined, reserved)).rejects.toThrow(/nothing of it was kept: role name "pg_api" is reserved/)
  expect(await columns()).toEqual([])
})

test("takes its turns with drizzle's own migrator", async () => {
  const now = Date.now()
  const second = withMigration('create table second (x int)', now)
  const third = withMigration('create table third (x int)', now + 1, second)
  const db = drizzle(database.sql)
  await migrateByDrizzle(db, { migrationsFolder: `${ROOT}drizzle` })
  expect(await run()).toBe(UP_TO_DATE)
  expect(await run(second)).toBe(applied(1))
  await migrateByDrizzle(db, { migrationsFolder: third })
  expect(await run(third)).toBe(UP_TO_DATE)
  const record = await database.sql`select hash, created_at from drizzle.__drizzle_migrations order by id`
  const known = readMigrationFiles({ migrationsFolder: third })
  expect(record).toEqual(known.map(({ hash, folderMillis }) => ({ hash, created_at: String(folderMillis) })))
})

test('refuses a migration that is older than what the database has had, for it would be left out', async () => {
  const now = Date.now()
  const first = withMigration('create table first (x int)', now)
  await run(first)
  const late = withMigration('create table late (x int)', now - 1000, first)
  await expect(run(late)).rejects.toThrow(/generate it anew/)
  expect(await run(withMigration('create table later (x int)', now + 1000, first))).toBe(applied(1))
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
  expect(await migrating.result).toBe(applied(1))
  expect(await columns()).toContain('note')
  await database.sql.begin(async (long) => {
    await long`select count(*) from users`
    await expect(run(withMigration('alter table users add column other text', undefined, next))).rejects.toThrow(
      /long transaction/,
    )
  })
})

test('a time-out that the database gives its connections ends no migration', async () => {
  await run()
  await database.sql.unsafe(`alter database ${addressOf(database.url).database} set statement_timeout = '300ms'`)
  expect(await run(withMigration('select pg_sleep(1)'))).toBe(applied(1))
})

test('standard_conforming_strings=off changes nothing of a migration', async () => {
  const constraints = (sql: postgres.Sql) =>
    sql`select conname, pg_get_constraintdef(oid) from pg_constraint where conrelid = 'users'::regclass order by conname`
  await run()
  const other = await createTestDatabase({ empty: true })
  onTestFinished(other.drop)
  await other.sql.unsafe(`alter database ${addressOf(other.url).database} set standard_conforming_strings = off`)
  await migrate({ address: addressOf(other.url), folder: `${ROOT}drizzle`, api: undefined, MIGRATE_WAIT_MS: 0 })
  expect(await constraints(other.sql)).toEqual(await constraints(database.sql))
})

test('who owns nothing may migrate where there is nothing to do', async () => {
  await run()
  const user = `reader_${process.pid}`
  await database.sql.unsafe(`create role ${user} login password 'p'`)
  onTestFinished(async () => {
    const sql = postgres(inject('postgresUrl'), { max: 1 })
    await sql.unsafe(`drop role ${user}`)
    await sql.end()
  })
  await database.sql.unsafe(`
    grant usage on schema drizzle to ${user};
    grant select on drizzle.__drizzle_migrations to ${user}`)
  const address = { ...addressOf(database.url), user, password: 'p' }
  const options = { address, api: undefined, MIGRATE_WAIT_MS: 0 }
  expect(await migrate({ ...options, folder: `${ROOT}drizzle` })).toBe(UP_TO_DATE)
  await expect(migrate({ ...options, folder: withMigration('create table t (x int)') })).rejects.toThrow(
    'permission denied',
  )
})

describe('a server that lacks what the migrations use is told so', () => {
  const sentence = (is: string) => `PostgreSQL 18 or newer with the encoding UTF8 is needed, and this is ${is}.`

  test('PostgreSQL 17', async () => {
    const [server] = await database.sql`select current_setting('server_version_num') as number,
      current_setting('server_version') as version`
    const { port: target, ...address } = addressOf(database.url)
    const older = (version: unknown) => String(version).replace('18', '17')
    // PostgreSQL itself answers, but for the digits of its version.
    const age = (text: string) =>
      [server?.number, server?.version].reduce((aged, version) => aged.replaceAll(version, older(version)), text)
    const relay = createServer((socket) => {
      const aging = new Transform({
        transform: (chunk: Buffer, _, done) => done(null, Buffer.from(age(chunk.toString('latin1')), 'latin1')),
      })
      const upstream = connect(target, '127.0.0.1')
      for (const side of [socket, upstream]) side.on('error', () => {})
      socket.pipe(upstream).pipe(aging).pipe(socket)
    }).listen(0, '127.0.0.1')
    await once(relay, 'listening')
    onTestFinished(() => void relay.close())
    const { port } = relay.address() as AddressInfo
    const migrating = migrate({
      address: { ...address, port },
      folder: `${ROOT}drizzle`,
      api: undefined,
      MIGRATE_WAIT_MS: 0,
    })
    await expect(migrating).rejects.toThrow(sentence(`${older(server?.version)} with UTF8`))
    expect(await columns()).toEqual([])
  })

  test('a database without Unicode', async () => {
    const name = `ascii_${process.pid}`
    await database.sql.unsafe(`create database ${name} encoding 'SQL_ASCII' template template0`)
    onTestFinished(async () => {
      const sql = postgres(inject('postgresUrl'), { max: 1 })
      await sql.unsafe(`drop database ${name} with (force)`)
      await sql.end()
    })
    const address = { ...addressOf(database.url), database: name }
    const migrating = migrate({ address, folder: `${ROOT}drizzle`, api: undefined, MIGRATE_WAIT_MS: 0 })
    await expect(migrating).rejects.toThrow(/PostgreSQL 18 .* and this is 18\S* with SQL_ASCII\.$/)
  })
})

describe('a connection that is lost while it migrates', () => {
  /** Runs a migration up to a lock that the test holds, through a network that can fail. */
  async function startMigration() {
    const blocked = withMigration(
      [
        'create table once_only (x int)',
        'set local lock_timeout = 0',
        'select pg_advisory_xact_lock(1)',
        'insert into once_only values (1)',
      ].join('--> statement-breakpoint\n'),
    )
    const { port, ...address } = addressOf(database.url)
    const network = await startProxy(port)
    onTestFinished(network.close)
    const blocker = postgres(database.url, { max: 1 })
    await blocker`select pg_advisory_lock(1)`
    const first = migrate({
      address: { ...address, port: network.port },
      folder: blocked,
      api: undefined,
      MIGRATE_WAIT_MS: 0,
    })
    first.catch(() => {})
    const backends = async () => {
      const rows = await database.sql`select pid from pg_stat_activity
        where datname = current_database() and application_name = 'users-api migrate' and wait_event = 'advisory'`
      return rows.map(({ pid }) => pid)
    }
    await expect.poll(backends).toHaveLength(1)
    return { first, blocked, network, backends, release: () => blocker.end() }
  }

  const expectAppliedOnce = async () => {
    expect(await database.sql`select x from once_only`).toEqual([{ x: 1 }])
    const [record] = await database.sql`select count(*)::int, count(distinct hash)::int as distinct
      from drizzle.__drizzle_migrations`
    expect(record).toEqual({ count: 2, distinct: 2 })
  }

  test('fails in one sentence, and another process starts when PostgreSQL has ended it', async () => {
    const { first, blocked, network, release } = await startMigration()
    network.cut()
    await expect(first).rejects.toThrow(/^The connection was lost .*: try again\.$/)
    // PostgreSQL notices the loss only when the statement ends.
    await expect(run(blocked)).rejects.toThrow(/Another process is still migrating/)
    expect(await columns()).toEqual([])
    const second = run(blocked, undefined, 600_000)
    await release()
    expect(await second).toBe(applied(2))
    await expectAppliedOnce()
  })

  test('fails in one sentence when PostgreSQL ends it', async () => {
    const { first, blocked, backends, release } = await startMigration()
    for (const pid of await backends()) await database.sql`select pg_terminate_backend(${pid})`
    await expect(first).rejects.toThrow(/^The connection was lost .*: try again\.$/)
    await expect.poll(backends).toEqual([])
    await release()
    expect(await columns()).toEqual([])
    expect(await run(blocked)).toBe(applied(2))
    await expectAppliedOnce()
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
      MIGRATE_WAIT_MS: 600_000,
    })
    await sleep(300)
    const network = await startProxy(target, port)
    expect(await migrating).toMatch(/^Migrations applied: \d+\.$/)
    network.close()
  })

  test('is given up after the wait', async () => {
    const start = performance.now()
    const address = { ...addressOf(database.url), port: await freePort() }
    await expect(migrate({ address, folder: `${ROOT}drizzle`, api: undefined, MIGRATE_WAIT_MS: 600 })).rejects.toThrow(
      `The database at 127.0.0.1:${address.port} cannot be used`,
    )
    expect(performance.now() - start).toBeGreaterThan(600)
  })

  test('is one sentence and exit code 1 in the end', async () => {
    const waiting = main(['migrate'], { DATABASE_URL: 'postgres://u:p@127.0.0.1:1/db', MIGRATE_WAIT_MS: '1' })
    expect(await waiting.exited).toBe(1)
    expect(waiting.stderr()).toMatch(/^users-api: The database at 127\.0\.0\.1:1 cannot be used: .*ECONNREFUSED.*\n$/)
  })
})

test.each([
  ['at once', (socket: Socket) => socket.destroy()],
  ['with a reset', (socket: Socket) => socket.resetAndDestroy()],
  ['after the first message', (socket: Socket) => socket.once('data', () => socket.end())],
])('a server that closes each connection %s is given up in time, with pauses between tries', async (_, hangUp) => {
  const waitMs = 1000
  let connections = 0
  const server = createServer((socket) => {
    connections += 1
    hangUp(socket.on('error', () => {}))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => void server.close())
  const { port } = server.address() as AddressInfo
  const url = `postgres://u:p@127.0.0.1:${port}/db`
  const migrating = main(['migrate'], { DATABASE_URL: url, MIGRATE_WAIT_MS: String(waitMs) })
  expect(await migrating.exited).toBe(1)
  expect(migrating.stderr()).toMatch(/^users-api: The database at 127\.0\.0\.1:\d+ cannot be used: [^\n]+\n$/)
  expect(connections).toBeLessThanOrEqual(waitMs / 250 + 2)
})

test('explains a password that the database refuses', async () => {
  const url = new URL(database.url)
  url.password = 'wrong'
  const refused = main(['migrate'], { DATABASE_URL: url.href })
  expect(await refused.exited).toBe(1)
  expect(refused.stderr()).toMatch(/password authentication failed for user "postgres"\. .*docs\/failures\.md/)
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

  test('finds the tables where the migrations made them, and has the rights there', async () => {
    const name = addressOf(database.url).database
    for (const path of ['"$user", public', 'app', 'app, public']) {
      await database.sql.unsafe(`
        drop schema if exists drizzle cascade; drop schema if exists app cascade; create schema app;
        drop table if exists public.users; alter role postgres in database ${name} set search_path = ${path}`)
      await run(undefined, { user, password: 'p' })
      const sql = as('p')
      const schema = path.startsWith('app') ? 'app' : 'public'
      expect(
        await sql`select relnamespace::regnamespace::text as schema from pg_class where oid = 'users'::regclass`,
      ).toEqual([{ schema }])
      await sql`insert into users (username, email) values ('a', 'a@example.com')`
      await sql.end()
    }
  })

  test('has time-outs by default, which end a statement before its deadline', async () => {
    await run(undefined, { user, password: 'p' })
    const sql = as('p')
    expect(await sql`show statement_timeout`).toEqual([{ statement_timeout: `${0.9 * DEADLINE_MS}ms` }])
    expect(await sql`show lock_timeout`).toEqual([{ lock_timeout: `${0.2 * DEADLINE_MS}ms` }])
    expect(await database.sql`show statement_timeout`).toEqual([{ statement_timeout: '0' }])
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
    const password = 'ﬁne pässword'
    // PostgreSQL's own clients take the ligature for two letters; postgres.js sends what it is given.
    const sent = 'fine pässword'
    await run(undefined, { user, password })
    const before = as(sent)
    await before`select 1`
    await run(undefined, { user, password })
    const after = as(sent)
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
  const api = { user: 'api', password: 'topsecret', deadlineMs: DEADLINE_MS }
  await migrate({ address: addressOf(server.url), folder: `${ROOT}drizzle`, api, MIGRATE_WAIT_MS: 0 })
  await expect.poll(() => log).toContain('grant select')
  expect(log).toContain("alter role api login password 'SCRAM-SHA-256$")
  expect(log).not.toContain(api.password)
})
