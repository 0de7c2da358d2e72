#!/usr/bin/env python3
"""Writes the hand-made VHDs of this folder, field by field from the VHD Image Format Specification 1.0; no other program is involved."""
import gzip
import struct

SECTOR = 512


def seal(data, at):
    data = bytearray(data)
    data[at:at + 4] = bytes(4)
    data[at:at + 4] = struct.pack('>I', ~sum(data) & 0xFFFFFFFF)
    return bytes(data)


def footer(creator, size, chs, kind, identity, time=0x1000):
    data = struct.pack('>8sIIQI4sI4sQQHBBII', b'conectix', 2, 0x10000, (1 << 64) - 1 if kind == 2 else 512, time, creator, 0x60003,
                       b'Wi2k', size, size, *chs, kind, 0) + identity
    return seal(data.ljust(512, b'\0'), 64)


def header(entries, block_size, parent=bytes(16), time=0, name='', locators=()):
    data = struct.pack('>8sQQIIII', b'cxsparse', (1 << 64) - 1, 1536, 0x10000, entries, block_size, 0)
    data += parent + struct.pack('>II', time, 0) + name.encode('utf-16-be').ljust(512, b'\0')
    for code, text, offset in locators:
        data += struct.pack('>4sIIIQ', code, SECTOR, len(text), 0, offset)
    return seal(data.ljust(1024, b'\0'), 36)


def dynamic(foot, head, entries, block_size, blocks, locators=()):
    """blocks: number -> (sectors that are there, byte that fills each of them)"""
    table_bytes = -(-entries * 4 // SECTOR) * SECTOR
    table = [0xFFFFFFFF] * (table_bytes // 4)
    body = b''.join(text.ljust(SECTOR, b'\0') for _, text, _ in locators)
    for number, (sectors, fill) in blocks.items():
        table[number] = (1536 + table_bytes + len(body)) // SECTOR
        bits, data = bytearray(-(-block_size // SECTOR // 4096) * SECTOR), bytearray(block_size)
        for sector in sectors:
            bits[sector // 8] |= 0x80 >> sector % 8
            data[sector * SECTOR:(sector + 1) * SECTOR] = bytes([fill]) * SECTOR
        body += bits + data
    return foot + head + struct.pack(f'>{len(table)}I', *table) + body + foot


def save(name, data):
    with open(name + '.gz', 'wb') as file:
        file.write(gzip.compress(data, 9, mtime=0))


# Equal in every field but the creator application: 10 MiB by current size, 300 x 4 x 17 sectors by geometry.
for name, creator in (('virtual-pc-dynamic.vhd', b'vpc '), ('hyper-v-dynamic.vhd', b'win '), ('disk2vhd-dynamic.vhd', b'd2v '), ('azure-dynamic.vhd', b'wa\0\0')):
    foot = footer(creator, 10 << 20, (300, 4, 17), 3, b'\x41' * 16)
    save(name, dynamic(foot, header(5, 2 << 20), 5, 2 << 20, {0: (range(4096), 0x5A), 4: ({0, 5, 6, 7, 4095}, 0xA5)}))

# A fixed disk as Azure exports it, with the old 511-byte footer as a variant.
foot = footer(b'win ', 1 << 20, (30, 4, 17), 2, b'\x42' * 16)
save('fixed.vhd', b'\x11' * (1 << 20) + foot)
save('fixed-511.vhd', b'\x11' * (1 << 20) + foot[:511])

# A chain of three: each sector tells which layer it comes from. The end of the middle one is cut off, as by a crash.
names = [(b'W2ku', r'C:\vms\base.vhd'.encode('utf-16-le'), 2048), (b'W2ru', r'.\base.vhd'.encode('utf-16-le'), 2560)]
base = footer(b'win ', 256 << 10, (7, 4, 17), 3, b'\x01' * 16, 0x2000)
save('base.vhd', dynamic(base, header(4, 64 << 10), 4, 64 << 10, {0: (range(128), 1), 2: (range(64), 1)}))
middle = footer(b'win ', 256 << 10, (7, 4, 17), 4, b'\x02' * 16, 0x3000)
save('middle.vhd', dynamic(middle, header(4, 64 << 10, b'\x01' * 16, 0x2000, 'base.vhd', names), 4, 64 << 10,
                           {0: (range(1, 128, 2), 2), 3: ({127}, 2)}, names)[:-512])
names = [(b'W2ru', r'.\middle.vhd'.encode('utf-16-le'), 2048)]
top = footer(b'win ', 256 << 10, (7, 4, 17), 4, b'\x03' * 16, 0x4000)
save('top.vhd', dynamic(top, header(4, 64 << 10, b'\x02' * 16, 0x3000, 'middle.vhd', names), 4, 64 << 10, {0: (range(3, 128, 4), 3), 2: ({0, 63, 64}, 3)}, names))
