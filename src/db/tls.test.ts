import { chownSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { generate } from 'selfsigned'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { type Postgres, startPostgres } from '../../dev/postgres.ts'
import { addressOf } from '../../test/database.ts'
import type { Address } from './address.ts'
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

/** Gives the server a certificate for the name, which whoever connects from here trusts. */
async function certify(name: string) {
  const { cert, private: key } = await generate([{ name: 'commonName', value: name }], {
    keyType: 'ec',
    extensions: [{ name: 'subjectAltName', altNames: [{ type: 2, value: name }] }],
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
}

/** Whether the connection is encrypted, or why there is none; and how much of a large answer came. */
async function connect(ssl: Address['ssl']) {
  const address = { ...addressOf(pg.url), host: 'localhost', ssl }
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
