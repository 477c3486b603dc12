import { readFileSync } from 'node:fs'
import { check } from 'recheck'
import { describe, expect, test } from 'vitest'
import { parseAst } from 'vitest/node'
import * as z from 'zod'
import { projectFiles } from '../test/files.ts'
import { ROOT } from '../test/process.ts'

/** What may take longer, and why. */
const EXEMPT = [
  // `DATABASE_URL`, which is the operator's own.
  /^postgres(?:ql)?:\/\/(?:(?<user>[^:/?]*)(?::(?<password>[^/?]*))?@)?(?<host>[^/?]*?)(?::(?<port>\d*))?(?:\/(?<dbname>[^?]*))?(?:\?(?<query>.*))?$/,
].map(({ source }) => source)

type Found = { pattern: string; flags: string }

/** The regular expressions below a node of a syntax tree. Those that are made of text cannot be judged, so they fail. */
function expressionsIn(node: unknown): Found[] {
  if (typeof node !== 'object' || node === null) return []
  if ('callee' in node && JSON.stringify(node.callee).includes('"RegExp"')) {
    throw new Error('a regular expression is made of text')
  }
  if ('regex' in node && node.regex) return [node.regex as Found]
  return Object.values(node).flatMap(expressionsIn)
}

const inText = (source: string) => expressionsIn(parseAst(source, { lang: 'ts' }))

/** Whether matching takes time in proportion to the text, whatever that is: 'safe', or how it grows. */
async function growthOf({ pattern, flags }: Found): Promise<string> {
  const found = await check(pattern, flags, { timeout: 60_000 })
  return found.status === 'vulnerable' ? found.complexity.summary : found.status
}

const files = projectFiles().filter((file) => /^src\/.*(?<!\.test)\.ts$/.test(file))

describe('a regular expression takes time in proportion to its text', () => {
  const found = files.flatMap((file) => inText(readFileSync(ROOT + file, 'utf8')).map((each) => ({ file, ...each })))

  test('the sources have some', () => {
    expect(found.length).toBeGreaterThan(30)
    expect(found.map(({ pattern }) => pattern)).toEqual(expect.arrayContaining(EXEMPT))
  })

  test.each(found.filter(({ pattern }) => !EXEMPT.includes(pattern)))('$file: $pattern', async (each) => {
    expect(await growthOf(each)).toBe('safe')
  })

  test.each([z.regexes.unicodeEmail, z.regexes.rfc5322Email, z.regexes.html5Email])(
    "zod's %s",
    async ({ source: pattern, flags }) => {
      expect(await growthOf({ pattern, flags })).toBe('safe')
    },
  )
})

describe('one that does not is found', () => {
  test.each([
    ['const text = s.replace(/^(a+)+$/, "")', 'exponential'],
    ['const trimmed = (s: string) => s.replace(/\\s+$/u, "")', '2nd degree polynomial'],
    ['class A { private b = /(\\w*)*-/.test(c as string) }', 'exponential'],
  ])('%s: %s', async (source, growth) => {
    const [found] = inText(source)
    expect(await growthOf(found ?? expect.fail('It was not found.'))).toBe(growth)
  })

  test.each(['new RegExp(text)', 'const a = RegExp("a" + b, "u")', 'globalThis.RegExp("a+")'])('%s', (source) => {
    expect(() => inText(source)).toThrow('made of text')
  })
})
