#include "mount/tools/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <type_traits>

namespace pkramfs {

CommandLine::CommandLine(const std::string& program, const std::string& what,
                         const std::string& footer)
    : owned_(std::make_unique<CLI::App>(what, program)), app_(owned_.get()) {
  app_->footer(footer);
}

CommandLine::CommandLine(CLI::App* command) : app_(command) {}

CommandLine::~CommandLine() = default;

template <typename T>
void CommandLine::Option(const std::string& names, T* value, const std::string& help,
                         const std::string& kind) {
  CLI::Option* const option = app_->add_option(names, *value, help);
  if constexpr (std::is_arithmetic_v<T>) {
    option->capture_default_str();
  } else if constexpr (!std::is_same_v<T, std::string>) {
    option->allow_extra_args(false);
  } else if (!value->empty()) {
    option->capture_default_str();
  }
  if (!kind.empty()) option->type_name(kind);
}

template void CommandLine::Option(const std::string&, std::string*, const std::string&,
                                  const std::string&);
template void CommandLine::Option(const std::string&, std::vector<std::string>*, const std::string&,
                                  const std::string&);
template void CommandLine::Option(const std::string&, int*, const std::string&, const std::string&);
template void CommandLine::Option(const std::string&, uint32_t*, const std::string&,
                                  const std::string&);
template void CommandLine::Option(const std::string&, uint64_t*, const std::string&,
                                  const std::string&);
template void CommandLine::Option(const std::string&, double*, const std::string&,
                                  const std::string&);

void CommandLine::Required(const std::string& name, std::string* value, const std::string& help) {
  app_->add_option(name, *value, help)->required();
}

void CommandLine::Rest(const std::string& name, std::vector<std::string>* values,
                       const std::string& help, Least least) {
  app_->add_option(name, *values, help)->required(least == Least::kOne);
}

void CommandLine::Flag(const std::string& names, bool* value, const std::string& help) {
  app_->add_flag(names, *value, help);
}

void CommandLine::Ignored(const std::string& name, const std::string& help) {
  app_->add_option(name, help)->expected(0, 1);
}

CommandLine& CommandLine::Command(const std::string& name, const std::string& what) {
  app_->require_subcommand(1);
  // Options of the program are taken behind the command, too.
  commands_.emplace_back(new CommandLine(app_->add_subcommand(name, what)->fallthrough()));
  return *commands_.back();
}

bool CommandLine::given() const { return app_->parsed(); }

std::optional<int> CommandLine::Parse(int argc, char** argv, int wrong_usage) {
  const std::string name = app_->get_name();
  app_->set_version_flag("--version,-V", name + " " PKRAMFS_VERSION);
  try {
    app_->parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::CallForHelp&) {
    std::fputs(app_->help().c_str(), stdout);
    return 0;
  } catch (const CLI::CallForAllHelp&) {
    std::fputs(app_->help("", CLI::AppFormatMode::All).c_str(), stdout);
    return 0;
  } catch (const CLI::CallForVersion& e) {
    std::printf("%s\n", e.what());
    return 0;
  } catch (const CLI::ParseError& e) {
    // The help of the command that was typed, if one was.
    const std::vector<CLI::App*> typed = app_->get_subcommands();
    const std::string whole = typed.empty() ? name : name + " " + typed.front()->get_name();
    std::fprintf(stderr, "%s: %s: see %s --help\n", whole.c_str(), e.what(), whole.c_str());
    return wrong_usage;
  }
}

namespace {

std::string Escaped(std::string_view bytes) {
  std::string escaped;
  for (const char c : bytes) {
    char text[8];
    std::snprintf(text, sizeof(text), "\\x%02x", static_cast<unsigned char>(c));
    escaped += text;
  }
  return escaped;
}

// The length of the valid UTF-8 character at the beginning of `text`, and the character; 0 if there
// is none.
size_t CharacterAt(std::string_view text, uint32_t* character) {
  const auto first = static_cast<unsigned char>(text[0]);
  const size_t length = first < 0x80   ? 1
                        : first < 0xc2 ? 0
                        : first < 0xe0 ? 2
                        : first < 0xf0 ? 3
                                       : 4;
  if (length == 0 || first > 0xf4 || text.size() < length) return 0;
  *character = length == 1 ? first : first & (0x7fu >> length);
  for (size_t i = 1; i < length; ++i) {
    const auto next = static_cast<unsigned char>(text[i]);
    if ((next & 0xc0) != 0x80) return 0;
    *character = *character << 6 | (next & 0x3f);
  }
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool is_surrogate = *character >= 0xd800 && *character < 0xe000;
  return *character < kLeast[length] || *character > 0x10ffff || is_surrogate ? 0 : length;
}

// Whether a character controls the terminal, or the direction of text.
bool IsControl(uint32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x2028 && c <= 0x202e) ||
         (c >= 0x2066 && c <= 0x2069);
}

}  // namespace

std::string Printable(std::string_view text) {
  std::string printable;
  while (!text.empty()) {
    uint32_t character = 0;
    const size_t length = CharacterAt(text, &character);
    const std::string_view piece = text.substr(0, std::max<size_t>(length, 1));
    const bool is_shown = length != 0 && !IsControl(character);
    printable += is_shown ? std::string(piece) : Escaped(piece);
    text.remove_prefix(piece.size());
  }
  return printable;
}

}  // namespace pkramfs
