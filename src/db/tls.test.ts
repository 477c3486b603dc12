import { chownSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { generate } from 'selfsigned'
import { afterAll, afterEach, beforeAll, expect, onTestFinished, test } from 'vitest'
import { type Postgres, startPostgres } from '../../dev/postgres.ts'
import { addressOf } from '../../test/database.ts'
import { main } from '../../test/process.ts'
import { parseConfig } from '../config.ts'
import { type Address, parseAddress } from './address.ts'
import { connect as open, run } from './connection.ts'
import { createPool } from './pool.ts'

const dataDir = join(tmpdir(), `users-api-tls-${process.pid}`)
const trusted = getCACertificates('default')
let pg: Postgres
beforeAll(async () => {
  pg = await startPostgres({ dataDir })
})
afterEach(() => setDefaultCACertificates(trusted))
afterAll(async () => {
  await pg.stop()
  rmSync(dataDir, { recursive: true, force: true })
})

/** Gives the server a certificate for the name or IP address, which whoever connects from here trusts. Returns it. */
async function certify(name: string) {
  const altName = isIP(name) ? ({ type: 7, ip: name } as const) : ({ type: 2, value: name } as const)
  const { cert, private: key } = await generate([{ name: 'commonName', value: name }], {
    keyType: 'ec',
    extensions: [{ name: 'subjectAltName', altNames: [altName] }],
  })
  const { uid, gid } = statSync(pg.dataDir)
  for (const [file, text] of [
    ['server.crt', cert],
    ['server.key', key],
  ] as const) {
    const path = join(pg.dataDir, file)
    writeFileSync(path, text, { mode: 0o600 })
    if (process.getuid?.() === 0) chownSync(path, uid, gid)
  }
  await pg.stop()
  pg = await startPostgres({ dataDir, settings: { ssl: 'on' } })
  setDefaultCACertificates([...trusted, cert])
  return cert
}

/** Whether the connection is encrypted, or why there is none; and how much of a large answer came. */
async function connect(ssl: Address['ssl'], other: { host?: string; rootCert?: string | undefined } = {}) {
  const address = { ...addressOf(pg.url), host: 'localhost', ssl, ...other }
  const db = createPool({ address, applicationName: 'test', deadlineMs: 2000, connections: 3 })
  try {
    const text = "select ssl, repeat('x', 200000) from pg_stat_ssl where pid = pg_backend_pid()"
    const [row] = await db.query('read', text, [], performance.now() + 2000)
    return { encrypted: row?.[0], bytes: String(row?.[1]).length }
  } catch (error) {
    return (error as Error).message
  } finally {
    await db.close(0)
  }
}

test('sslmode is what decides: prefer takes TLS where there is some, require and verify-full insist on it', async () => {
  const plain = { encrypted: false, bytes: 200_000 }
  const encrypted = { encrypted: true, bytes: 200_000 }
  expect([await connect('disable'), await connect('prefer')]).toEqual([plain, plain])
  for (const ssl of ['require', 'verify-full'] as const) expect(await connect(ssl)).toMatch(/./)
  await certify('localhost')
  expect(await connect('disable')).toEqual(plain)
  for (const ssl of ['prefer', 'require', 'verify-full'] as const) expect(await connect(ssl)).toEqual(encrypted)
})

test('verify-full refuses a certificate that nobody vouches for, and one for another name; require takes both', async () => {
  await certify('localhost')
  setDefaultCACertificates(trusted)
  expect(await connect('verify-full')).toMatch(/self.signed/i)
  expect(await connect('require')).toMatchObject({ encrypted: true })
  await certify('elsewhere.example')
  expect(await connect('verify-full')).toMatch(/altnames|elsewhere/i)
  expect(await connect('require')).toMatchObject({ encrypted: true })
})

test('verify-full checks an IP address as such, and verify-ca no name at all', async () => {
  const host = '127.0.0.1'
  await certify('localhost')
  expect(await connect('verify-full', { host })).toMatch(/IP: 127\.0\.0\.1 is not in the cert's list/)
  expect(await connect('verify-ca', { host })).toMatchObject({ encrypted: true })
  await certify(host)
  expect(await connect('verify-full', { host })).toMatchObject({ encrypted: true })
  expect(await connect('verify-full')).toMatch(/altnames/)
  expect(await connect('verify-ca')).toMatchObject({ encrypted: true })
  setDefaultCACertificates(trusted)
  expect(await connect('verify-ca')).toMatch(/self.signed/i)
})

test('sslrootcert alone may vouch for the server, by the URL and by its parts; it may be renewed, and require checks it as well', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'ca-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'ca.pem')
  const [others, ours] = [await certify('localhost'), await certify('localhost')]
  for (const ssl of ['require', 'verify-ca', 'verify-full'] as const) {
    const byUrl = () => parseAddress(`${pg.url}?sslmode=${ssl}&sslrootcert=${path}`)
    const byParts = () => parseConfig({ DB_SSLMODE: ssl, DB_SSLROOTCERT: path }).address
    for (const parse of [byUrl, byParts]) {
      writeFileSync(path, others)
      const { rootCert } = parse()
      // What Node trusts besides does not count.
      expect(await connect(ssl, { rootCert })).toMatch(/self.signed/i)
      setDefaultCACertificates(trusted)
      writeFileSync(path, ours)
      expect(await connect(ssl, { rootCert })).toMatchObject({ encrypted: true })
      setDefaultCACertificates([...trusted, ours])
    }
  }
  rmSync(path)
  expect(await connect('verify-full', { rootCert: path })).toMatch(/ENOENT/)
})

test('a connection may be cut while a statement is being written to it', async () => {
  await certify('localhost')
  const address = { ...addressOf(pg.url), host: 'localhost', ssl: 'verify-full' as const }
  const { sql, destroy, closed } = await open({ address, applicationName: 'test' })
  const answer = run(sql, 'select 1', [])
  destroy()
  await expect(answer).rejects.toThrow(/closed/i)
  await closed
})

test('NODE_EXTRA_CA_CERTS is trusted besides', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'ca-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'ours.pem')
  writeFileSync(path, await certify('127.0.0.1'))
  const migrate = (env: Record<string, string>) =>
    main(['migrate'], { DATABASE_URL: `${pg.url}?sslmode=verify-full`, MIGRATE_WAIT_MS: '0', ...env })
  const distrustful = migrate({})
  expect(await distrustful.exited).toBe(1)
  expect(distrustful.stderr()).toMatch(/self.signed/i)
  expect(await migrate({ NODE_EXTRA_CA_CERTS: path }).exited).toBe(0)
})
