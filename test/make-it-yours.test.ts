import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { projectFiles } from './files.ts'
import { ROOT } from './process.ts'

const PAGE = 'docs/make-it-yours.md'
/** They keep the old names. */
const UNCHANGED = [PAGE, 'LICENSE', 'test/make-it-yours.test.ts']
/** Names of this service, of its owner, and of what it has in PostgreSQL and Kubernetes. */
const OLD_NAMES =
  /users-(api|db)|users_(api|owner)|ravishankar|namespace:? users\b|-n users\b|(DB_NAME|POSTGRES_DB|dbname)[:=] ?users\b|-d,? users\b/i

/** The rows of the page's table: in which files or folders which text becomes which. */
const replacements = () =>
  readFileSync(ROOT + PAGE, 'utf8')
    .split('\n')
    .filter((line) => /^\| .*`/.test(line))
    .map((line) => {
      const [, , files = '', from = '', to = ''] = line.split('|').map((cell) => cell.trim())
      const texts = (cell: string) => [...cell.matchAll(/`([^`]+)`/g)].map(([, text = '']) => text)
      return { paths: texts(files), from: texts(from).join(), to: texts(to).join() }
    })

test('the page renames everything, and every row of its table is needed', () => {
  const rows = replacements()
  expect(rows.length).toBeGreaterThan(10)
  const files = projectFiles().filter((file) => !UNCHANGED.includes(file))
  const texts = new Map(files.map((file) => [file, readFileSync(ROOT + file, 'utf8')]))
  const unused: string[] = []
  for (const { paths, from, to } of rows) {
    for (const path of paths) {
      const found = [...texts].filter(
        ([file, text]) => (path === '.' || file === path || file.startsWith(`${path}/`)) && text.includes(from),
      )
      for (const [file, text] of found) texts.set(file, text.replaceAll(from, to))
      if (found.length === 0) unused.push(`${path}: ${from}`)
    }
  }
  expect(unused).toEqual([])
  const left = [...texts].flatMap(([file, text]) =>
    text
      .split('\n')
      .filter((line) => OLD_NAMES.test(line))
      .map((line) => `${file}: ${line.trim()}`),
  )
  expect(left).toEqual([])

  const folder = mkdtempSync(join(tmpdir(), 'make-it-yours-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  for (const [file, text] of texts) {
    mkdirSync(join(folder, dirname(file)), { recursive: true })
    writeFileSync(join(folder, file), text)
  }
  execFileSync('git', ['init', '--quiet'], { cwd: folder })
  const script = ['.github/scripts/set-image.ts', '--name']
  expect(execFileSync(process.execPath, script, { cwd: folder, encoding: 'utf8' })).toBe('docker.io/you/orders-api\n')
})
