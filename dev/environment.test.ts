import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { settings } from '../src/config.ts'
import { readEnvironment } from './environment.ts'

/** A file .env with this text. */
function envFile(text: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'env-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const path = join(folder, '.env')
  writeFileSync(path, text)
  return path
}

const none = '/does/not/exist/.env'

test('each setting of the database says that one of their own is meant, but for what the API has there', () => {
  const names = settings.map(({ name }) => name)
  const meant = names.filter((name) => readEnvironment({ [name]: 'x' }, none).database !== undefined)
  const others = ['DB_CONNECTIONS', 'DB_API_USER', 'DB_API_PASSWORD', 'DB_API_PASSWORD_FILE']
  expect(meant).toEqual(names.filter((name) => /^(DATABASE|DB)_/.test(name) && !others.includes(name)))
  expect(meant).toEqual(expect.arrayContaining(['DATABASE_URL', 'DB_HOST', 'DB_SSLROOTCERT']))
})

test('says where each was set: the shell comes before .env, and an empty one does not count', () => {
  const path = envFile('DB_HOST=of-the-file\nDB_NAME=app\nDB_USER=\n')
  const { env, database } = readEnvironment({ DB_HOST: 'of-the-shell', DB_PORT: '' }, path)
  expect(database).toBe('DB_HOST in the environment, DB_NAME in .env')
  expect(env).toEqual({ DB_HOST: 'of-the-shell', DB_PORT: '', DB_NAME: 'app', DB_USER: '' })
  const url = readEnvironment({ DATABASE_URL: 'postgres://host/users' }, path)
  expect(url.database).toBe('DATABASE_URL in the environment')
})

test('.env may come from Windows, with a byte order mark and CRLF, and have quotes and comments', () => {
  const lines = [
    'PORT=4000',
    '# a comment',
    '',
    'export DB_NAME=app # another',
    'DB_USER="with spaces "',
    `DB_PASSWORD='p@s$w"rd#%&\\n'`,
    'DB_API_PASSWORD=`it\'s "both"`',
    'DB_HOST = db.example ',
    'HOST=""',
  ]
  const expected = {
    PORT: '4000',
    DB_NAME: 'app',
    DB_USER: 'with spaces ',
    DB_PASSWORD: 'p@s$w"rd#%&\\n',
    DB_API_PASSWORD: `it's "both"`,
    DB_HOST: 'db.example',
    HOST: '',
  }
  for (const [mark, end] of [
    ['', '\n'],
    ['\uFEFF', '\r\n'],
  ]) {
    expect(readEnvironment({}, envFile(mark + lines.join(end) + end)).env).toEqual(expected)
  }
})

test("variables of PostgreSQL's own clients are left out, wherever they were set", () => {
  const { env } = readEnvironment({ PGHOST: 'elsewhere', PATH: '/bin' }, envFile('PGPASSWORD=x\nPORT=1\n'))
  expect(env).toEqual({ PATH: '/bin', PORT: '1' })
})
