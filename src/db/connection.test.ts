import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type ListenOptions, connect as tcpConnect } from 'node:net'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer as createTlsServer } from 'node:tls'
import { generate } from 'selfsigned'
import { expect, inject, onTestFinished, test } from 'vitest'
import { freePort } from '../../dev/postgres.ts'
import { startApi } from '../../test/api.ts'
import { addressOf, createTestDatabase } from '../../test/database.ts'
import { parseConfig } from '../config.ts'
import { retry, TransientError } from '../retry.ts'
import { type ConnectionOptions, connect, run } from './connection.ts'

const server = addressOf(inject('postgresUrl'))
const { user, password, port: target } = server

/** Leads from an address or a socket to PostgreSQL, until the test ends. */
async function lead(from: ListenOptions) {
  const relay = createServer((socket) => {
    const upstream = tcpConnect(target, '127.0.0.1')
    for (const side of [socket, upstream]) side.on('error', () => {})
    socket.pipe(upstream).pipe(socket)
  })
  await once(relay.listen(from), 'listening')
  onTestFinished(() => void relay.close())
}

/** Connects to what the text names, and says which database answered. Where none is to answer, once is enough. */
async function ask(text: string, open = patientConnect) {
  const connection = await open({ address: addressOf(text), applicationName: 'test' })
  const [row] = await run(connection.sql, 'select current_database()', [])
  await connection.sql.end({ timeout: 1 })
  return row?.[0]
}

test('hosts are reached by name and by address', async () => {
  for (const host of ['localhost', '127.0.0.1', '[::ffff:127.0.0.1]']) {
    expect(await ask(`postgres://${user}:${password}@${host}:${target}/postgres`)).toBe('postgres')
  }
})

test('an IPv6 address leads there, and not to 127.0.0.1', async () => {
  const loopback = Object.entries(networkInterfaces()).find(([, all]) => all?.some(({ address }) => address === '::1'))
  const hosts = loopback ? ['[::1]', `[::1%25${loopback[0]}]`] : []
  for (const host of hosts) {
    const port = await freePort()
    await lead({ host: '::1', port })
    expect(await ask(`postgres://${user}:${password}@${host}:${port}/postgres`)).toBe('postgres')
    await expect(ask(`postgres://${user}:${password}@${host}:${target}/postgres`, connect)).rejects.toThrow(
      'ECONNREFUSED',
    )
  }
})

test('a Unix socket is reached in every form of its URI, and needs no TLS', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'a:b:c-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  await lead({ path: join(folder, '.s.PGSQL.5432') })
  const login = `${user}:${password}`
  for (const text of [
    `postgres://${login}@/postgres?host=${folder}`,
    `postgres://${login}@localhost/postgres?host=${folder}`,
    `postgres://${login}@${encodeURIComponent(folder)}/postgres?sslmode=verify-full`,
  ]) {
    expect(await ask(text), text).toBe('postgres')
  }
})

test('over TLS a server is told the name that was asked for, and of the address only user and database', async () => {
  const { cert, private: key } = await generate([{ name: 'commonName', value: 'localhost' }], { keyType: 'ec' })
  const told = Promise.withResolvers<{ name: string | false | null; startup: string[] }>()
  const speaker = createTlsServer({ cert, key }, (socket) => {
    // PostgreSQL, section 54.7: StartupMessage. Its length and version are 8 bytes, and names and values end with a zero.
    socket.once('data', (data) => {
      told.resolve({ name: socket.servername, startup: data.subarray(8).toString().split('\0') })
      socket.destroy()
    })
  })
  const greeter = createServer((socket) => {
    // TLS is asked for first, and begins after the S.
    socket.once('data', () => {
      socket.write('S')
      speaker.emit('connection', socket)
    })
  })
  await once(greeter.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => void greeter.close())
  const { port } = greeter.address() as { port: number }
  const refused = ask(
    `postgres://postgres.abc:p@localhost:${port}/users?sslmode=require&channel_binding=prefer`,
    connect,
  )
  await expect(refused).rejects.toMatchObject({ name: 'DatabaseUnavailable' })
  const { name, startup } = await told.promise
  expect(name).toBe('localhost')
  const pairs = startup.flatMap((text, i) => (i % 2 === 0 && text !== '' ? [[text, startup[i + 1]]] : []))
  expect(Object.fromEntries(pairs)).toEqual({
    user: 'postgres.abc',
    database: 'users',
    client_encoding: 'UTF8',
    application_name: 'test',
    TimeZone: 'UTC',
    DateStyle: 'ISO',
    standard_conforming_strings: 'on',
  })
})

/** A connection, also on a machine that is too busy to answer at once. */
const patientConnect = (options: ConnectionOptions) =>
  retry(30_000, () =>
    connect(options).catch((error: Error) => {
      throw error.message === 'it does not answer' ? new TransientError(error.message) : error
    }),
  )

test.each(['p@:/?#[]%&=+', `'"\\\`$;`, ' between  spaces ', 'größer, 密码 and 🔑', 'ª Ω ½'.normalize('NFD')])(
  'DB_PASSWORD may be any text: %s',
  async (secret) => {
    const role = `speaks_${process.pid}`
    const admin = await patientConnect({ address: server, applicationName: 'test' })
    const [row] = await run(admin.sql, "select format('create role %I login password %L', $1::text, $2::text)", [
      role,
      secret,
    ])
    await admin.sql.unsafe(String(row?.[0]))
    onTestFinished(async () => {
      await admin.sql.unsafe(`drop role ${role}`)
      await admin.sql.end({ timeout: 1 })
    })
    const parts = { DB_HOST: server.host, DB_PORT: String(server.port), DB_USER: role, DB_PASSWORD: secret }
    const { address } = parseConfig(parts)
    const connection = await patientConnect({ address, applicationName: 'test' })
    expect(await run(connection.sql, 'select current_user', [])).toEqual([[role]])
    await connection.sql.end({ timeout: 1 })
    await expect(
      patientConnect({ address: { ...address, password: secret.slice(1) }, applicationName: 'test' }),
    ).rejects.toThrow('password authentication failed')
  },
)

test.each([
  ['the network itself', '[ff0e::1]'],
  ['a socket that is not there', '%2Fdoes%2Fnot%2Fexist'],
  ['a name that is not there', 'nobody.invalid'],
])('%s is an error, not the end of the process', async (_, host) => {
  const refused = ask(`postgres://u:p@${host}/db`, connect)
  await expect(refused).rejects.toMatchObject({ name: 'DatabaseUnavailable', reached: 'unsent' })
})

test.each([
  ['takes no connection', '', 'disable', 'it does not answer'],
  ['never speaks of TLS', '', 'require', 'it does not answer'],
  ['stops in the middle of TLS', 'S', 'require', 'it does not answer'],
  ['has no TLS', 'N', 'require', 'it offers no TLS'],
  ['has TLS, but says more before it begins', 'S and more', 'require', 'it offers no TLS'],
  ['speaks something else', 'HTTP/1.1 400 Bad Request', 'prefer', 'it offers no TLS'],
])('a server that %s is given up in time', async (_, answer, sslmode, reason) => {
  const silent = createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', () => socket.write(answer))
  })
  await once(silent.listen(0, '127.0.0.1'), 'listening')
  onTestFinished(() => void silent.close())
  const { port } = silent.address() as { port: number }
  await expect(ask(`postgres://u:p@127.0.0.1:${port}/db?sslmode=${sslmode}`, connect)).rejects.toThrow(reason)
})

test('where nothing takes the connection, it is given up before one that a silent server took', async () => {
  // Its process sleeps, so that nobody but the kernel takes connections: one or two, and then it answers no more.
  const full = `const server = require('node:net').createServer().listen({ host: '127.0.0.1', port: 0, backlog: 1 }, () => {
    require('node:fs').writeSync(1, String(server.address().port))
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
  })`
  const child = spawn(process.execPath, ['-e', full], { stdio: ['ignore', 'pipe', 'inherit'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const port = Number(await once(child.stdout, 'data'))
  const givenUp: number[] = []
  const attempts = Array.from({ length: 6 }, async (_, i) => {
    const refused = expect(ask(`postgres://u:p@127.0.0.1:${port}/db?sslmode=disable`, connect)).rejects
    await refused.toThrow('it does not answer')
    givenUp.push(i)
  })
  await Promise.all(attempts)
  // The kernel took the first.
  expect(givenUp.at(-1)).toBeLessThan(2)
  expect(givenUp[0]).toBeGreaterThan(1)
})

test('settings of the database change neither what a text means nor how a time is written', async () => {
  const database = await createTestDatabase()
  const name = addressOf(database.url).database
  const settings = { standard_conforming_strings: 'off', DateStyle: "'German'", TimeZone: "'Asia/Tokyo'" }
  for (const [setting, value] of Object.entries(settings)) {
    await database.sql.unsafe(`alter database ${name} set ${setting} = ${value}`)
  }
  const api = await startApi({ DATABASE_URL: database.url })
  onTestFinished(async () => {
    await api.close()
    await database.drop()
  })
  const user = (await api.request('POST', '/users', { username: 'a\\b', email: 'a@example.com' })).body
  expect(user).toMatchObject({ username: 'a\\b', createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/) })
  expect((await api.request('GET', '/users')).body.users).toEqual([user])
  expect((await api.request('GET', `/users?username=${encodeURIComponent('A\\B')}`)).body.users).toEqual([user])
  const lines = await api.request('GET', '/users', undefined, { accept: 'application/x-ndjson' })
  expect(JSON.parse(lines.text)).toEqual(user)
})
