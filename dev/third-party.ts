// What others wrote and the image carries: its bill of materials, and the texts of its licenses.
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Metafile } from 'esbuild'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const PACKAGE = /^.*node_modules\/(?:@[^/]+\/)?[^/]+/
const LICENSE_FILE = /^(licen[sc]e|notice|copying)/i

/** They ask those who pass a package on for nothing but their text. */
export const ALLOWED_IN_IMAGE = ['0BSD', 'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', 'ISC', 'MIT', 'Unlicense']

/** Nobody gets from us what is only used for developing. */
export const ALLOWED_FOR_DEVELOPING = [...ALLOWED_IN_IMAGE, 'MPL-2.0', 'MIT OR Apache-2.0', '(MIT AND Zlib)']

/** A package in a bill of materials. */
export type Component = {
  'bom-ref': string
  purl: string
  hashes?: { alg: string; content: string }[]
  licenses?: { license?: { id: string }; expression?: string }[]
}

/** What we read and write of CycloneDX 1.5. */
export type Bom = {
  metadata: { lifecycles: { phase: string }[]; component: { 'bom-ref': string } }
  components: Component[]
  dependencies: { ref: string; dependsOn: string[] }[]
}

/** The bill of materials of the lock file, with all that is only used for developing. */
export function readLockFile(): Bom {
  const args = ['sbom', '--package-lock-only', '--sbom-format=cyclonedx', '--sbom-type=application']
  // On Windows npm is a script.
  const options = { cwd: ROOT, encoding: 'utf8', maxBuffer: 2 ** 26, shell: process.platform === 'win32' } as const
  return JSON.parse(execFileSync('npm', args, options))
}

/** The license of a package as SPDX writes it, or nothing. */
export const licenseOf = ({ licenses: [first] = [] }: Component) => first?.license?.id ?? first?.expression

/** Throws, with their names, if packages have a license that is not among those allowed. */
export function checkLicenses(components: Component[], allowed: string[]): void {
  const refused = components.filter((it) => !allowed.includes(licenseOf(it) ?? ''))
  if (refused.length === 0) return
  const list = refused.map((it) => `${it['bom-ref']} (${licenseOf(it) ?? 'no license'})`).join(', ')
  throw new Error(`dev/third-party.ts does not allow the license of ${list}`)
}

/** The files that a bundle has something of, relative to the project's folder. */
export const filesOf = ({ outputs }: Metafile) =>
  Object.values(outputs).flatMap(({ inputs }) =>
    Object.keys(inputs).filter((file) => (inputs[file]?.bytesInOutput ?? 0) > 0),
  )

/**
 * Writes what must be told of the packages that `files` are from into `folder`: `sbom.cdx.json`, their bill of materials,
 * and `THIRD-PARTY.txt`, their licenses.
 * @throws Error if the license of one is not allowed
 */
export function writeThirdParty(folder: string, files: string[]): void {
  const packages = new Map(
    files.flatMap((file) => {
      const [path] = PACKAGE.exec(file) ?? []
      if (!path) return []
      const { name, version } = JSON.parse(readFileSync(join(ROOT, path, 'package.json'), 'utf8'))
      return [[`${name}@${version}`, path]]
    }),
  )
  const bom = pick(readLockFile(), new Set(packages.keys()))
  checkLicenses(bom.components, ALLOWED_IN_IMAGE)
  writeFileSync(join(folder, 'sbom.cdx.json'), JSON.stringify(bom, null, 2))
  const texts = bom.components.map((it) => ({
    title: `${it['bom-ref']} (${licenseOf(it)})`,
    text: textOf(packages.get(it['bom-ref']) ?? '', files) || `https://spdx.org/licenses/${licenseOf(it)}.html`,
  }))
  // Many packages of one author have the same text.
  const sections = Object.entries(Object.groupBy(texts, ({ text }) => text)).map(
    ([text, them = []]) => `${them.map(({ title }) => title).join('\n')}\n\n${text}\n`,
  )
  writeFileSync(join(folder, 'THIRD-PARTY.txt'), sections.join(`\n${'-'.repeat(80)}\n\n`))
}

/** The bill of materials of these packages alone. */
function pick(bom: Bom, refs: Set<string>): Bom {
  const { component } = bom.metadata
  return {
    ...bom,
    metadata: { ...bom.metadata, lifecycles: [{ phase: 'build' }] },
    components: bom.components.filter((it) => refs.has(it['bom-ref'])),
    dependencies: bom.dependencies
      .filter(({ ref }) => refs.has(ref) || ref === component['bom-ref'])
      .map(({ ref, dependsOn }) => ({ ref, dependsOn: dependsOn.filter((it) => refs.has(it)) })),
  }
}

/** What a package says of its licenses, and of those of the files that it made from others' packages. */
function textOf(path: string, files: string[]): string {
  const own = readdirSync(join(ROOT, path)).filter((name) => LICENSE_FILE.test(name))
  const made = files.filter((file) => file.startsWith(`${path}/`)).map((file) => `${file}.LICENSE.txt`)
  return [...own.map((name) => join(path, name)), ...made]
    .map((file) => join(ROOT, file))
    .filter((file) => existsSync(file))
    .map((file) => readFileSync(file, 'utf8').trim())
    .join('\n\n')
}
