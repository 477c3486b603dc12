import { once } from 'node:events'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { expect, test } from 'vitest'
import { freePort } from '../../dev/postgres.ts'
import { makeClone, portFree, served } from '../clone.ts'
import { createTestDatabase } from '../database.ts'

test('what cannot be is told in one sentence with the true reason', async () => {
  const clone = await makeClone()
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  const { port } = other.address() as { port: number }
  for (const [args, env, sentence, code] of [
    [[], { PORT: String(port), HOST: '127.0.0.1' }, `Port ${port} is taken: .*`, 1],
    [[], { PORT: String(port) }, `Port ${port} is taken: .*`, 1],
    [[], { HOST: '192.0.2.1' }, 'The API cannot listen with PORT=\\d+ and HOST=192.0.2.1: .*EADDRNOTAVAIL.*', 1],
    [[], { HOST: 'no.such.host.invalid' }, 'The API cannot listen .* HOST=no.such.host.invalid: .*', 1],
    [[], { PORT: 'abc' }, 'PORT must be .*', 2],
    [['--rest'], {}, "Unknown option '--rest'[\\s\\S]*Usage: .*[\\s\\S]*", 1],
    [['--reset'], { DB_HOST: '127.0.0.1' }, '--reset is for .* DB_HOST in the environment names another\\.', 1],
  ] as const) {
    const dev = clone.dev([...args], env)
    expect(await dev.exited, dev.output()).toBe(code)
    expect(dev.stderr()).toMatch(new RegExp(`^${sentence}\n$`))
  }
  other.close()
})

const RESERVED = '/proc/sys/net/ipv4/ip_unprivileged_port_start'

// Containers and other systems may give every port to everybody.
if (existsSync(RESERVED) && Number(readFileSync(RESERVED, 'utf8')) > 80) {
  test('a port that only root may have is told as such, and not as taken', async () => {
    const clone = await makeClone()
    const dev = clone.dev([], { PORT: '80' })
    expect(await dev.exited).toBe(1)
    expect(dev.stderr()).toMatch(/^The API cannot listen with PORT=80: listen EACCES: permission denied \S+:80\n$/)
  })
}

test("other programs' variables of PostgreSQL do no harm, and the banner's address answers", async () => {
  const clone = await makeClone()
  const harm = {
    PGHOST: '192.0.2.1',
    PGPORT: '1',
    PGUSER: 'nobody',
    PGDATA: '/nonexistent',
    PGDATABASE: 'other',
    PGSSLMODE: 'require',
    PGOPTIONS: '-c default_transaction_read_only=on',
    PGTARGETSESSIONATTRS: 'read-only',
  }
  const dev = clone.dev([], { ...harm, HOST: '127.0.0.1' })
  await served(dev)
  const [, origin] = await dev.printed(/Users API +(http:\S+)\/users/)
  expect(origin).toBe(`http://127.0.0.1:${clone.port}`)
  expect((await fetch(`${origin}/users`)).status).toBe(200)
  const migrate = clone.run('npm', ['run', 'db:migrate'], harm)
  expect(await migrate.exited, migrate.output()).toBe(0)
})

test('a database of .env is named, waited for aloud, and never migrated unasked when others use it', async () => {
  const clone = await makeClone()
  const nowhere = await freePort()
  writeFileSync(
    clone.path('.env'),
    `PORT=${clone.port}\nDB_HOST=127.0.0.1\nDB_PORT=${nowhere}\nMIGRATE_WAIT_MS=600000\n`,
  )
  const waiting = clone.run('npm', ['run', 'dev'])
  await waiting.printed(
    new RegExp(
      `The database postgres://postgres@127.0.0.1:${nowhere}/postgres cannot be used: .*ECONNREFUSED.*Trying again`,
    ),
  )
  waiting.process.kill('SIGTERM')
  await waiting.exited
  rmSync(clone.path('.env'))

  const database = await createTestDatabase({ empty: true })
  for (const [url, reason, told] of [
    [database.url.replace(/:[^:@]+@/, ':wrong@'), 'password authentication failed.*', ''],
    [`postgres://nobody@127.0.0.1:${nowhere}/postgres`, '.*ECONNREFUSED.*', '.*Trying again.*\n'],
  ] as const) {
    const given = clone.dev([], { DATABASE_URL: url, MIGRATE_WAIT_MS: '0' })
    expect(await given.exited).toBe(1)
    expect(given.stderr()).toMatch(new RegExp(`^The database .* cannot be used: ${reason}\n$`))
    expect(given.stdout()).toMatch(new RegExp(`dev\n\n${told}$`))
  }
  const env = { DATABASE_URL: database.url }
  await database.sql`create table others (id int)`
  const refused = clone.dev([], env)
  expect(await refused.exited).toBe(1)
  expect(refused.stderr()).toMatch(
    /^The database .* \(DATABASE_URL in the environment\) has tables of something else\..* --migrate\n$/,
  )
  expect(await database.sql`select from pg_tables where tablename = 'users'`).toHaveLength(0)

  const asked = clone.dev(['--migrate'], env)
  await served(asked)
  expect(asked.stdout()).toContain('(DATABASE_URL in the environment)')
  expect(asked.stdout()).not.toContain(new URL(database.url).password)
  expect((await fetch(`${asked.origin}/readyz`)).status).toBe(200)
  asked.process.kill('SIGTERM')
  await asked.exited
  await portFree(asked.origin)
  const again = clone.dev([], env)
  await served(again)
  again.process.kill('SIGTERM')
  await again.exited
  await portFree(again.origin)
  await database.drop()
})
