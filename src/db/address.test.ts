import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { parseAddress, parseHost } from './address.ts'

const plain = { host: 'db.example', port: 5432, database: 'app', user: 'postgres', password: '', ssl: 'disable' }
const socket = '/cloudsql/project:region:instance'

test.each([
  ['postgres://db.example/app', plain],
  ['postgresql://u%40x:p%2F1@db.example:6432/app', { ...plain, port: 6432, user: 'u@x', password: 'p/1' }],
  ['postgres://u:a@b:c#d+e@db.example/app', { ...plain, user: 'u', password: 'a@b:c#d+e' }],
  ['postgres://db.example:/app?', plain],
  ['postgres://192.0.2.1:6432/app', { ...plain, host: '192.0.2.1', port: 6432 }],
  ['postgres://[2001:db8::1]/app', { ...plain, host: '2001:db8::1' }],
  ['postgres://u:p@[fd00::1]:6432/app', { ...plain, host: 'fd00::1', port: 6432, user: 'u', password: 'p' }],
  ['postgres://[fe80::1%25eth0]/app', { ...plain, host: 'fe80::1%eth0' }],
  ['postgres:///app?host=/var/run/postgresql', { ...plain, host: '/var/run/postgresql' }],
  ['postgres://%2Fvar%2Frun%2Fpostgresql/app', { ...plain, host: '/var/run/postgresql' }],
  [`postgres://u:p@/app?host=${socket}`, { ...plain, host: socket, user: 'u', password: 'p' }],
  [
    `postgres://u:p@localhost/app?host=${encodeURIComponent(socket)}`,
    { ...plain, host: socket, user: 'u', password: 'p' },
  ],
  ['postgres:///app?host=db.example&port=6432', { ...plain, port: 6432 }],
  ['postgres://?host=db.example&dbname=app&user=u&password=a+b', { ...plain, user: 'u', password: 'a+b' }],
  ['postgres://db.example/app?sslmode=verify-ca', { ...plain, ssl: 'verify-ca' }],
  ['postgres://db.example/app?sslmode=verify-full&channel_binding=prefer', { ...plain, ssl: 'verify-full' }],
])('%s', (text, address) => {
  expect(parseAddress(text)).toEqual(address)
})

const neon = 'postgresql://alex:s3cret@ep-cool-darkness-123456-pooler.us-east-2.aws.neon.tech/users'
const supabase = 'aws-0-eu-central-1.pooler.supabase.com'

test.each([
  [
    `${neon}?sslmode=verify-full`,
    { host: 'ep-cool-darkness-123456-pooler.us-east-2.aws.neon.tech', port: 5432, database: 'users', user: 'alex' },
  ],
  [`${neon.replace('-pooler', '')}?sslmode=require`, { host: 'ep-cool-darkness-123456.us-east-2.aws.neon.tech' }],
  [
    'postgresql://postgres:s3cret@db.abcdefghijkl.supabase.co:5432/postgres',
    { host: 'db.abcdefghijkl.supabase.co', port: 5432, database: 'postgres', user: 'postgres' },
  ],
  [
    `postgresql://postgres.abcdefghijkl:s3cret@${supabase}:5432/postgres?sslmode=require`,
    { host: supabase, port: 5432, user: 'postgres.abcdefghijkl' },
  ],
  [`postgres://postgres.abcdefghijkl:s3cret@${supabase}:6543/postgres`, { host: supabase, port: 6543 }],
  ['postgresql://postgres:s3cret@10.1.2.3:6432/postgres', { host: '10.1.2.3', port: 6432 }],
])('the URL of a service: %s', (text, address) => {
  expect(parseAddress(text)).toMatchObject({ password: 's3cret', ...address })
})

const FORM = 'it must be like postgres://user:password@host:5432/database'
const HOST = 'a host is one name, one IP address, or the folder of a Unix socket'

test.each([
  ['nonsense', FORM],
  ['mysql://host/app', FORM],
  ['postgres://', FORM],
  ['postgres://host', FORM],
  ['postgres:///app', FORM],
  ['postgres://host/app?port=x', FORM],
  ['postgres://u:p%@host/app', 'write % as %25'],
  ['postgres://u:p/w@host/app', HOST],
  ['postgres://host:x/app', HOST],
  ['postgres://::1/app', HOST],
  ['postgres://host1,host2/app', HOST],
  ['postgres://host1:123,host2:456/app', HOST],
  ['postgres://[::1],[::2]/app', HOST],
  ['postgres:///app?host=host1,host2', HOST],
  ['postgres://host/app?sslmode=maybe', 'sslmode must be one of disable, prefer, require, verify-ca, verify-full'],
  ['postgres://host/app?sslmode=allow', 'sslmode must be one of'],
  ['postgres://host/app?channel_binding=require', 'channel_binding=require is not supported: leave it out'],
  ['postgres://host/app?sslrootcert=ca.pem', 'sslrootcert needs an sslmode such as verify-full'],
  ['postgres://host/app?sslmode=verify-full&sslrootcert=/no/ca.pem', 'no such file'],
  ['postgres://host/app?sslmode=verify-full&sslrootcert=system', 'leave out system'],
  ['postgres://host/app?connect_timeout=10', 'channel_binding are supported, not connect_timeout'],
  ['postgres://host/app?options=-c%20synchronous_commit%3Doff', 'are supported, not options'],
  ['postgres://host/app?target_session_attrs=any', 'are supported, not target_session_attrs'],
  [`${neon}?sslmode=require&channel_binding=require`, 'channel_binding=require is not supported: leave it out'],
  [`${neon}?sslmode=require&options=endpoint%3Dep-cool-darkness-123456`, 'are supported, not options'],
  [`postgres://postgres.abc:p@${supabase}:6543/postgres?pgbouncer=true`, 'are supported, not pgbouncer'],
  [`postgres://postgres.abc:p@${supabase}:6543/postgres?connection_limit=1`, 'are supported, not connection_limit'],
])('%s is refused: %s', (text, sentence) => {
  expect(() => parseAddress(text)).toThrow(sentence)
})

test('sslrootcert is a file of certificates, and one without any is refused', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ca+'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'ca.pem')
  const read = () => parseAddress(`postgres://db.example/app?sslmode=require&sslrootcert=${path}`)
  writeFileSync(path, '-----BEGIN PRIVATE KEY-----')
  expect(read).toThrow(`${path} holds no certificate`)
  writeFileSync(path, '-----BEGIN CERTIFICATE-----')
  expect(read()).toEqual({ ...plain, ssl: 'require', rootCert: path })
})

test.each([
  ['db.example', 'db.example'],
  ['127.0.0.1', '127.0.0.1'],
  ['::1', '::1'],
  ['[::1]', '::1'],
  ['fe80::1%eth0', 'fe80::1%eth0'],
  [socket, socket],
])('the host %s', (text, host) => {
  expect(parseHost(text)).toBe(host)
})

test.each(['host1,host2', 'host:5432', '[::1]:5432', 'postgres://host', 'user@host', '@abstract', 'two words'])(
  'the host %s is refused',
  (text) => {
    expect(() => parseHost(text)).toThrow(HOST)
  },
)
