import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { ROOT } from '../test/process.ts'

const REFUSED = 'SQL is not made of text'

/** What Biome says, by our settings, of a source with this path. */
function lint(path: string, source: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'lint-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  // The folder is no repository.
  const { vcs, $schema, ...settings } = JSON.parse(readFileSync(`${ROOT}biome.json`, 'utf8'))
  writeFileSync(join(folder, 'biome.json'), JSON.stringify(settings))
  cpSync(`${ROOT}dev/lint`, join(folder, 'dev/lint'), { recursive: true })
  mkdirSync(join(folder, dirname(path)), { recursive: true })
  writeFileSync(join(folder, path), source)
  const options = { cwd: folder, encoding: 'utf8' } as const
  const { stdout, stderr } = spawnSync(`${ROOT}node_modules/.bin/biome`, ['lint', '--colors=off', path], options)
  expect(stdout).toContain('Checked 1 file')
  return stdout + stderr
}

test.each([
  'sql.raw(text)',
  'db.execute(sql.raw(text))',
  'client.unsafe(text)',
  'client.unsafe<Row[]>(text, [1])',
  "sql.raw(text + 'x')",
  'run(`select * from users where username = $' + '{text}`, [])',
  'run(`\n  INSERT into users values ($' + '{text})`, [])',
  "run('delete from users where username = ' + text, [])",
])('SQL that is made of text is refused: %s', (call) => {
  expect(lint('src/users/statements.ts', `export const a = (text: string) => ${call}\n`)).toContain(REFUSED)
})

test.each([
  ['src/users/statements.ts', 'sql`select $' + '{text}`'],
  ['src/users/statements.ts', 'sql<boolean>`coalesce($' + '{text}, false)`'],
  ['src/users/statements.ts', "run('select * from users where username = $1', [text])"],
  ['src/users/views.ts', '`The user $' + "{text}` + ' is here.'"],
  ['src/db/columnar.ts', 'sql.raw(text)'],
  ['src/users/store.test.ts', 'client.unsafe(text)'],
])('in %s all else is not: %s', (path, call) => {
  const said = lint(path, `export const a = (text: string) => ${call}\n`)
  expect(said).not.toContain(REFUSED)
  expect(said).not.toContain('errored')
})
