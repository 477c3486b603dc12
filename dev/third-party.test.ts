import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ASSETS } from '../src/http/assets.ts'
import { bundle } from './build.ts'
import {
  ALLOWED_FOR_DEVELOPING,
  ALLOWED_IN_IMAGE,
  type Bom,
  type Component,
  checkLicenses,
  filesOf,
  licenseOf,
  readLockFile,
  writeThirdParty,
} from './third-party.ts'

let folder: string
let bom: Bom
let notices: string
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'third-party-'))
  const { metafile } = await bundle(folder)
  writeThirdParty(folder, [...filesOf(metafile), ...Object.values(ASSETS)])
  bom = JSON.parse(readFileSync(join(folder, 'sbom.cdx.json'), 'utf8'))
  notices = readFileSync(join(folder, 'THIRD-PARTY.txt'), 'utf8')
})
afterAll(() => rmSync(folder, { recursive: true }))

const nameOf = ({ 'bom-ref': ref }: Component) => ref.replace(/@[^@]+$/, '')

test('the bill of materials has each package that the bundle and the assets were made from, and no other', () => {
  // What esbuild says in another way.
  const maps = readdirSync(folder).filter((name) => name.endsWith('.js.map'))
  const sources = maps.flatMap((name): string[] => JSON.parse(readFileSync(join(folder, name), 'utf8')).sources)
  const named = sources.map((source) => /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(source)?.[1])
  // Some maps of packages lead past their folders.
  const bundled = named.filter((name) => name && existsSync(`node_modules/${name}/package.json`))
  expect(bom.components.map(nameOf)).toEqual([...new Set([...bundled, 'swagger-ui-dist'])].sort())
  expect(bom.components.map(nameOf)).toEqual(expect.arrayContaining(['hono', 'postgres', 'zod']))
})

test('it says of each where it is from, what it must hash to and its license, and on which others it depends', () => {
  for (const component of bom.components) {
    expect(component.purl).toMatch(/^pkg:npm\//)
    expect(component.hashes).toEqual([{ alg: 'SHA-512', content: expect.stringMatching(/^[0-9a-f]{128}$/) }])
    expect(ALLOWED_IN_IMAGE).toContain(licenseOf(component))
  }
  const refs = bom.components.map((it) => it['bom-ref'])
  expect(bom.dependencies.map(({ ref }) => ref).sort()).toEqual([...refs, bom.metadata.component['bom-ref']].sort())
  expect(bom.dependencies.flatMap(({ dependsOn }) => dependsOn).filter((ref) => !refs.includes(ref))).toEqual([])
  expect(bom).toMatchObject({ bomFormat: 'CycloneDX', serialNumber: expect.stringContaining('urn:uuid:') })
})

test('the texts of the licenses stand beside the bundle, with the names of their packages', () => {
  for (const component of bom.components) expect(notices).toContain(`${component['bom-ref']} (${licenseOf(component)})`)
  // Licenses that ask for it; a package that lacks its text has that of another.
  expect(notices).toContain('Permission is hereby granted, free of charge')
  expect(notices).toContain('TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION')
  // Swagger UI is itself a bundle.
  expect(notices).toContain(
    readFileSync('node_modules/swagger-ui-dist/swagger-ui-bundle.js.LICENSE.txt', 'utf8').trim(),
  )
})

test.each([
  ['another license', [{ license: { id: 'GPL-3.0-only' } }], 'stranger@1.0.0 (GPL-3.0-only)'],
  ['a choice that nobody made', [{ expression: 'MIT OR GPL-3.0-only' }], 'stranger@1.0.0 (MIT OR GPL-3.0-only)'],
  ['none', undefined, 'stranger@1.0.0 (no license)'],
])('a package with %s is refused by its name', (_, licenses, named) => {
  const stranger = { 'bom-ref': 'stranger@1.0.0', purl: 'pkg:npm/stranger@1.0.0', ...(licenses && { licenses }) }
  expect(() => checkLicenses([...bom.components, stranger], ALLOWED_FOR_DEVELOPING)).toThrow(named)
})

test('every package of the lock file has a license that we allow', () => {
  const { components } = readLockFile()
  expect(components.length).toBeGreaterThan(bom.components.length)
  expect(() => checkLicenses(components, ALLOWED_FOR_DEVELOPING)).not.toThrow()
})
