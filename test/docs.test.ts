import { existsSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { expect, test } from 'vitest'
import { projectFiles } from './files.ts'
import { ROOT } from './process.ts'

const README_MAX_LINES = 200
const PICTURE_MAX_BYTES = 100_000
/** What stands before a path in a link from elsewhere, such as an alert's. */
const BLOB = /https:\/\/github\.com\/[\w-]+\/[\w-]+\/blob\/main\//g

const read = (path: string) => readFileSync(ROOT + path, 'utf8')
const withoutCode = (markdown: string) => markdown.replaceAll(/^```.*?^```/gms, '').replaceAll(/`[^`\n]*`/g, 'code')

/** The anchors that GitHub gives a document's headings. */
function anchorsOf(path: string): string[] {
  const headings = [
    ...read(path)
      .replaceAll(/^```.*?^```/gms, '')
      .matchAll(/^#+ +(.*)$/gm),
  ]
  return headings.map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(' ', '-'),
  )
}

/** Whether there is such a file or folder and, in a document, such a heading. `path` counts from the project's folder. */
function exists(path: string, anchor: string | undefined): boolean {
  if (!existsSync(ROOT + path)) return false
  return anchor === undefined || (path.endsWith('.md') && anchorsOf(path).includes(anchor))
}

test('every relative link of the documents leads somewhere', () => {
  const documents = projectFiles().filter((file) => file.endsWith('.md'))
  expect(documents).toContain('README.md')
  const links = documents.flatMap((document) =>
    [...withoutCode(read(document)).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = '']) => ({ document, target })),
  )
  const broken = links.filter(({ document, target }) => {
    if (/^[a-z]+:/.test(target)) return false
    const [path = '', anchor] = target.split('#')
    const file = path === '' ? document : relative(ROOT, join(ROOT, dirname(document), path))
    return !exists(file, anchor)
  })
  expect(broken).toEqual([])
  expect(links.length).toBeGreaterThan(20)
})

test('every section that a source, a script or a manifest names is there', () => {
  const named = projectFiles()
    .filter((file) => !file.endsWith('.md'))
    .flatMap((file) =>
      [
        ...read(file)
          .replaceAll(BLOB, '')
          .matchAll(/([\w/-]+\.md)#([\w-]+)/g),
      ].map(([, path = '', anchor]) => ({ file, path, anchor })),
    )
  expect(named.filter(({ path, anchor }) => !exists(path, anchor))).toEqual([])
  const files = named.map(({ file }) => file)
  for (const file of ['.github/scripts/require', 'kustomize/components/monitoring/rules.yaml'])
    expect(files).toContain(file)
})

test('every picture of the README is there, says what it shows, and loads fast', () => {
  const readme = read('README.md')
  const pictures = [...readme.matchAll(/ (?:src|srcset)="([^"]+)"/g)].map(([, path = '']) => path)
  expect(pictures.length).toBeGreaterThan(0)
  for (const path of pictures) expect(statSync(ROOT + path).size, path).toBeLessThan(PICTURE_MAX_BYTES)
  expect(readme.match(/<img [^>]* alt="[^"]+"/g)?.length).toBe(readme.match(/<img /g)?.length)
})

test('the README is short enough to be read', () => {
  expect(read('README.md').trimEnd().split('\n').length).toBeLessThanOrEqual(README_MAX_LINES)
})
