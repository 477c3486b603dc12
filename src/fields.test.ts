import { domainToASCII } from 'node:url'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import * as z from 'zod'
import { emailAddress, plainText, soughtEmail } from './fields.ts'

const isTaken = (address: string) => emailAddress.safeParse(address).success

describe('an email address', () => {
  test.each([
    'alice@example.com',
    'Alice.Liddell@example.com',
    'alice+news@example.com',
    'alice+a+b@example.com',
    'alice+@example.com',
    'alice-liddell@example.com',
    '-alice-@example.com',
    '_alice_@example.com',
    'alice_liddell@example.co.uk',
    "o'brien@example.ie",
    '1234567890@example.com',
    'a@b.co',
    'a@b',
    'alice@localhost',
    'alice@mail',
    "!#$%&'*+-/=?^_`{|}~@example.com",
    'customer/department=shipping@example.com',
    'a.b.c.d.e@example.com',
    'alice@a.b.c.d.e.example.com',
    'alice@ex-ample.com',
    'alice@a--b.com',
    'alice@123.com',
    'alice@1.2.3.example',
    'alice@4chan.org',
    'alice@example.museum',
    'alice@example.travel',
    `${'x'.repeat(64)}@example.com`,
    `alice@${'y'.repeat(63)}.com`,
    'δοκιμή@παράδειγμα.δοκιμή',
    'josé@example.com',
    'jose\u0301@example.com',
    'Jürgen.Müller@bücher.example',
    'straße@faß.example',
    '用户@例子.广告',
    'ユーザー@例え.テスト',
    '사용자@예시.한국',
    'иван.петров@почта.рф',
    'مستخدم@مثال.إختبار',
    'משתמש@דוגמה.קום',
    'उपयोगकर्ता@उदाहरण.भारत',
    'ผู้ใช้@ตัวอย่าง.ไทย',
    'alice+größe@example.com',
    '😀@example.com',
    'alice@☃.example',
    'alice@💩.example',
    'alice@ශ්\u200dරී.example',
    'alice@نامه\u200cای.example',
    'ɐlice@example.com',
    'nguyễn@vídụ.vn',
  ])('%s is taken as it is', (address) => {
    expect(emailAddress.parse(address)).toBe(address)
  })

  test.each([
    ['', 'nothing'],
    ['alice', 'no @'],
    ['@', 'only an @'],
    ['@example.com', 'no local part'],
    ['alice@', 'no domain'],
    ['alice@@example.com', 'two @'],
    ['alice@home@example.com', 'two @'],
    ['<alice@example.com>', 'angle brackets'],
    ['Alice<alice@example.com>', 'a name and angle brackets'],
    ['alice@<example.com>', 'angle brackets'],
    ['alice@example.com>', 'an angle bracket'],
    ['mailto:alice@example.com', 'a URL'],
    ['MAILTO:alice@example.com', 'a URL'],
    ['.alice@example.com', 'a dot at the start'],
    ['alice.@example.com', 'a dot before the @'],
    ['alice..liddell@example.com', 'two dots'],
    ['alice@.example.com', 'a dot after the @'],
    ['alice@example..com', 'two dots'],
    ['alice@example.com.', 'a dot at the end'],
    ['alice@example.com。', 'a wide dot at the end'],
    ['alice@example。。com', 'two wide dots'],
    ['alice@.', 'only a dot'],
    ['alice,bob@example.com', 'a comma'],
    ['alice@example,com', 'a comma'],
    ['alice@example.com,', 'a comma'],
    ['alice@example.com,bob@example.com', 'two addresses'],
    ['alice;bob@example.com', 'a semicolon'],
    ['alice@example.com;', 'a semicolon'],
    ['alice@example.com:25', 'a port'],
    ['alice@example.com:', 'a colon'],
    ['alice:secret@example.com', 'a password'],
    ['alice@-example.com', 'a hyphen at the start of a label'],
    ['alice@example-.com', 'a hyphen at the end of a label'],
    ['alice@example.-com', 'a hyphen at the start of a label'],
    ['alice@example.com-', 'a hyphen at the end of a label'],
    ['alice@－example.com', 'a wide hyphen at the start of a label'],
    ['alice@example.com/inbox', 'a path'],
    ['alice@example.com\\inbox', 'a path'],
    ['alice@example.com?subject=hello', 'a query'],
    ['alice@example.com#top', 'a fragment'],
    ['alice@example%2ecom', 'a percent sign'],
    ['alice@example％2ecom', 'a wide percent sign'],
    ['alice@bücher／example', 'a wide slash'],
    ['alice@ex_ample.com', 'an underscore in a label'],
    ['alice@exam!ple.com', 'an exclamation mark in a label'],
    ['alice@exam*ple.com', 'an asterisk in a label'],
    ["alice@exam'ple.com", 'an apostrophe in a label'],
    ['alice@(example).com', 'a comment'],
    ['alice(liddell)@example.com', 'a comment'],
    ['alice[1]@example.com', 'brackets'],
    ['alice\\@example.com', 'a backslash'],
    ['"alice"@example.com', 'quotation marks'],
    ['alice@"example.com"', 'quotation marks'],
    ['alice@[192.0.2.1]', 'an address of a host in brackets'],
    ['alice@[IPv6:2001:db8::1]', 'an address of a host in brackets'],
    ['alice@192.0.2.1', 'an address of a host'],
    ['alice@192.0.513', 'an address of a host'],
    ['alice@0x7f.1', 'an address of a host'],
    ['alice@３．4', 'an address of a host'],
    ['alice@example.123', 'a number as its last label'],
    ['alice liddell@example.com', 'a space'],
    [' alice@example.com', 'a space'],
    ['alice@example.com ', 'a space'],
    ['alice@exam ple.com', 'a space'],
    ['alice@example\u00a0.com', 'a no-break space'],
    ['alice\u3000@example.com', 'a wide space'],
    ['alice\u2028@example.com', 'a line separator'],
    ['alice\t@example.com', 'a tab'],
    ['alice@example.com\n', 'a line feed'],
    ['alice@exam\r\nple.com', 'a line break'],
    ['alice\u0000@example.com', 'U+0000'],
    ['alice\ud800@example.com', 'a lone surrogate'],
    ['al\u00adice@example.com', 'a soft hyphen'],
    ['alice\u200b@example.com', 'a zero-width space'],
    ['alice\u200d@example.com', 'a joiner'],
    ['\ufeffalice@example.com', 'a byte order mark'],
    ['\u202ealice@example.com', 'a mark of direction'],
    ['alice\u3164@example.com', 'a filler'],
    ['\u2800@example.com', 'a blank Braille cell'],
    ['alice\u{e0041}@example.com', 'a tag'],
    ['alice@exam\u00adple.com', 'a soft hyphen in the domain'],
    ['alice@exam\u200bple.com', 'a zero-width space in the domain'],
    ['alice@exam\u200dple.com', 'a joiner where none belongs'],
    ['alice@exam\u2060ple.com', 'a word joiner in the domain'],
    ['alice@example.com\ufeff', 'a byte order mark'],
    ['alice@\u3164.com', 'a filler as a label'],
    ['alice@exam\ufe0fple.com', 'a variation selector in the domain'],
    ['alice@xn--a.com', 'Punycode that stands for nothing'],
    ['alice@bücher.xn--zzzzzzzz', 'Punycode that stands for nothing'],
    ['alice@xn--.com', 'Punycode of nothing'],
    ['alice@ﷺ.com', 'a letter that stands for spaces'],
    ['alice@\u0301a.com', 'an accent at the start of a label'],
    [`${'x'.repeat(65)}@example.com`, 'a local part of 65 characters'],
    [`alice@${'y'.repeat(64)}.com`, 'a label of 64 characters'],
    [`alice@${'ü'.repeat(63)}.com`, 'a label that is too long in Punycode'],
    [`${'x'.repeat(64)}@${`${'y'.repeat(62)}.`.repeat(3)}yy`, '256 characters'],
    [`alice@${`ü${'y'.repeat(45)}.`.repeat(5)}com`, 'a domain that is too long in Punycode'],
  ])('%j is refused for %s, as one fault', (address) => {
    expect(emailAddress.safeParse(address).error?.issues).toHaveLength(1)
  })

  test('is described with its bounds', () => {
    const described = z.toJSONSchema(emailAddress)
    expect(described).toMatchObject({ type: 'string', minLength: 3, maxLength: 254, format: 'idn-email' })
  })

  test('may have 254 characters', () => {
    const address = `${'X'.repeat(64)}@${`${'y'.repeat(62)}.`.repeat(3)}`.slice(0, -1)
    expect(address).toHaveLength(253)
    expect(emailAddress.parse(`${address}y`)).toBe(`${address}y`)
    expect(isTaken(`${address}yy`)).toBe(false)
  })

  test.each([
    ['alice@xn--bcher-kva.example', 'alice@bücher.example'],
    ['alice@XN--BCHER-KVA.EXAMPLE', 'alice@bücher.example'],
    ['alice@BÜCHER.example', 'alice@bücher.example'],
    ['alice@bu\u0308cher.example', 'alice@bücher.example'],
    ['Alice@Example.COM', 'Alice@example.com'],
    ['JOSE\u0301@Example.com', 'JOSE\u0301@example.com'],
    ['Иван@ПОЧТА.РФ', 'Иван@почта.рф'],
    ['ИВАН@xn--80a1acny.xn--p1ai', 'ИВАН@почта.рф'],
    ['alice@例え。テスト', 'alice@例え.テスト'],
    ['alice@ｅｘａｍｐｌｅ.com', 'alice@example.com'],
    ['alice@xn--fa-hia.example', 'alice@faß.example'],
    ['alice@xn--10cl1a0b660p.example', 'alice@ශ්\u200dරී.example'],
  ])('%s is kept as %s', (address, kept) => {
    expect(emailAddress.parse(address)).toBe(kept)
    expect(soughtEmail.parse(address)).toBe(kept)
  })

  test.each(['<old@example.com>', 'old@example.com.', 'old', 'ol\u200bd@example.com', 'a'.repeat(254)])(
    'that is sought stays as it is if it would not be taken: %j',
    (address) => expect(soughtEmail.parse(address)).toBe(address),
  )

  test('that is taken is taken again in its own form and in Punycode, and stays the same', () => {
    const label = fc.string({ unit: 'binary', minLength: 1, maxLength: 8 })
    const local = fc.oneof(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 30 }), label)
    const address = fc.oneof(
      fc.tuple(local, fc.domain()),
      fc.tuple(
        local,
        fc.tuple(label, fc.constantFrom('.example', '。中国', '.xn--p1ai', '')).map(([a, b]) => a + b),
      ),
    )
    fc.assert(
      fc.property(address, ([local, domain]) => {
        const { success, data: kept = '' } = emailAddress.safeParse(`${local}@${domain}`)
        if (!success) return
        expect(kept.slice(0, local.length + 1)).toBe(`${local}@`)
        expect(emailAddress.parse(kept)).toBe(kept)
        expect(emailAddress.parse(`${local}@${domainToASCII(domain)}`)).toBe(kept)
      }),
      { numRuns: 1000 },
    )
  })

  test('of plain letters is judged as the rules for all others would judge it', () => {
    const label = fc.oneof(
      fc.stringMatching(/^[a-z\d-]{1,4}$/),
      fc.constantFrom('xn--', 'xn--p1ai', 'axn--b', 'a--b', '0x1', '1', 'y'.repeat(63), 'y'.repeat(64)),
    )
    const local = fc.oneof(fc.stringMatching(/^[\w+.-]{1,4}$/), fc.constantFrom('x'.repeat(64), 'x'.repeat(65)))
    const domain = fc.array(label, { minLength: 1, maxLength: 4 }).map((labels) => labels.join('.'))
    fc.assert(
      fc.property(local, domain, (local, domain) => {
        const upperCase = emailAddress.safeParse(`${local}@${domain.toUpperCase()}`)
        expect(emailAddress.safeParse(`${local}@${domain}`)).toEqual(upperCase)
      }),
      { numRuns: 5000 },
    )
  })

  test.each([
    'x@'.repeat(60_000),
    `a@${'.'.repeat(120_000)}`,
    `a@${'ü'.repeat(120_000)}`,
    `${'a\u0301\u0323'.repeat(40_000)}@b.example`,
    `"${'".'.repeat(60_000)}@b`,
  ])('that is huge is refused at once', (address) => {
    const start = performance.now()
    expect(isTaken(address)).toBe(false)
    expect(performance.now() - start).toBeLessThan(1000)
  })
})

describe('plain text', () => {
  const name = plainText(80)

  test('is described with its bounds', () => {
    const described = z.toJSONSchema(name)
    expect(described).toMatchObject({ type: 'string', minLength: 1, maxLength: 80 })
    const pattern = new RegExp(described.pattern ?? expect.fail('it has no pattern'), 'u')
    expect(['a b', 'ü', 'a\nb', '\u0000', 'a\u009f'].map((value) => pattern.test(value))).toEqual([
      true,
      true,
      false,
      false,
      false,
    ])
  })

  test.each([
    ['nothing', ''],
    ['spaces', '  '],
    ['zero-width spaces', '\u200b\u200b'],
    ['a byte order mark', '\ufeff'],
    ['joiners', '\u200c\u200d'],
    ['soft hyphens', '\u00ad'],
    ['word joiners', '\u2060\u2061'],
    ['a Hangul filler', '\u3164'],
    ['a Hangul filler of an initial', '\u115f'],
    ['a Hangul filler of a medial', '\u1160'],
    ['a half-width Hangul filler', '\uffa0'],
    ['a Mongolian vowel separator', '\u180e'],
    ['a grapheme joiner', '\u034f'],
    ['marks of direction', '\u200e\u200f\u061c\u202a\u202e\u2066\u2069'],
    ['variation selectors', '\ufe0f\u{e0100}'],
    ['tags', '\u{e0001}\u{e0041}\u{e007f}'],
    ['a musical sign without a form', '\u{1d173}'],
    ['a blank Braille cell', '\u2800'],
    ['zero-width spaces around a space', '\u200b \u200b'],
  ])('is refused if it is only %s, as one fault', (_, value) => {
    const issues = name.safeParse(value).error?.issues.map(({ message }) => message)
    expect(issues).toEqual(['must have a visible character'])
  })

  test.each([
    ['a family of emoji', '👩\u200d👩\u200d👧\u200d👦'],
    ['a flag of tags', '🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}'],
    ['an emoji with a variation selector', '❤\ufe0f'],
    ['a Persian name with a non-joiner', 'علی\u200cرضا'],
    ['a Sinhala name with a joiner', 'ශ්\u200dරී'],
    ['a mark of direction beside a name', '\u200fאליס\u200f'],
    ['a soft hyphen within a name', 'Donau\u00addampf'],
    ['Hangul with a filler', '\u115fᅡ'],
    ['a Braille name', '⠁⠇⠊⠉⠑\u2800⠃'],
    ['one letter', 'x'],
    ['an ideographic variation', '葛\u{e0100}'],
    ['a name of two words', '愛麗絲　李'],
  ])('is taken with %s', (_, value) => {
    expect(name.parse(value)).toBe(value.normalize('NFC'))
  })
})
