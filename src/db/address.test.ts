import { expect, test } from 'vitest'
import { parseAddress } from './address.ts'

const plain = { host: 'db.example', port: 5432, database: 'app', user: 'postgres', password: '', ssl: 'disable' }

test.each([
  ['postgres://db.example/app', plain],
  ['postgresql://u%40x:p%2F1@db.example:6432/app', { ...plain, port: 6432, user: 'u@x', password: 'p/1' }],
  ['postgres://db.example/app?sslmode=verify-full', { ...plain, ssl: 'verify-full' }],
  ['postgres://[fd00::1]:6432/app', { ...plain, host: 'fd00::1', port: 6432 }],
  ['postgres:///app?host=/var/run/postgresql', { ...plain, host: '/var/run/postgresql' }],
])('%s', (text, address) => {
  expect(parseAddress(text)).toEqual(address)
})

test.each([
  ['nonsense', 'it must be like postgres://user:password@host:5432/database'],
  ['mysql://host/app', 'it must be like postgres://'],
  ['postgres://host', 'it must be like postgres://'],
  ['postgres:///app', 'it must be like postgres://'],
  ['postgres://u:p%@host/app', 'write % as %25'],
  ['postgres://host/app?sslmode=maybe', 'sslmode must be one of disable, prefer, require, verify-full'],
  ['postgres://host/app?sslrootcert=ca.pem', 'of parameters, host and sslmode are supported, not sslrootcert'],
])('%s is refused: %s', (text, sentence) => {
  expect(() => parseAddress(text)).toThrow(sentence)
})
